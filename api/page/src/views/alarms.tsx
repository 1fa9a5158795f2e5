// Alarms: which have fired, why, when they did so before, and when another rule would have.
import { useState } from "preact/hooks";
import { ask, REFRESH_MS, useAsked } from "../ask";
import { Chart, type Band } from "../chart";
import { count, secondsOf } from "../format";
import { Answer, Card, Empty, Failure, Head, projectName, projectNames, Time, Waiting } from "../parts";
import { link, setParams } from "../route";
import { isOperator, type Session } from "../session";
import { SpanPicker, useSpan, zoomOut, zoomTo } from "../span";
import { t, type Key } from "../text";

type State = "ok" | "alarm" | "insufficient data";

interface Alarm {
  alarm_id: string;
  name: string;
  description: string;
  type: string;
  state: State;
  state_reason: string;
  state_timestamp: string;
  severity: string;
  enabled: boolean;
  project_id: string;
  repeat_actions: boolean;
  time_constraints: unknown[];
  alarm_actions: string[];
  ok_actions: string[];
  insufficient_data_actions: string[];
}

interface Change {
  event_id: string;
  type: string;
  detail: string;
  timestamp: string;
}

interface Timeline {
  windows: { end: string; value: number | null; state: State }[];
  transitions: { timestamp: string; previous: State; current: State; reason: string }[];
}

type Rule = Record<string, unknown>;

const STATES: Record<State, { name: Key; class: string }> = {
  alarm: { name: "alarms.state.alarm", class: "bad" },
  ok: { name: "alarms.state.ok", class: "good" },
  "insufficient data": { name: "alarms.state.insufficient", class: "quiet" },
};

const ORDER: State[] = ["alarm", "insufficient data", "ok"];

export function StateTag({ state }: { state: State }) {
  const known = STATES[state];
  return (
    <span class={`state ${known?.class ?? ""}`}>
      <i aria-hidden="true">{state === "alarm" ? "▲" : state === "ok" ? "●" : "○"}</i> {known ? t(known.name) : state}
    </span>
  );
}

export function Alarms({ id, params, session }: { id: string | undefined; params: URLSearchParams; session: Session }) {
  return id ? <One key={id} id={id} params={params} /> : <All params={params} session={session} />;
}

function All({ params, session }: { params: URLSearchParams; session: Session }) {
  const wanted = params.get("state");
  const all = isOperator(session);
  const asked = useAsked(
    "alarms",
    async (signal) => {
      const question = all ? { "q.field": "all_projects", "q.op": "eq", "q.value": "true" } : {};
      const [alarms, names] = await Promise.all([ask<Alarm[]>("alarming/v2/alarms", { params: question, signal }), projectNames()]);
      return { alarms, names };
    },
    REFRESH_MS,
  );
  const sorted = (asked.data?.alarms ?? [])
    .filter((alarm) => !wanted || alarm.state === wanted)
    .sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.name.localeCompare(b.name));
  return (
    <>
      <Head title={t("alarms.title")}>
        <div class="spans" role="group" aria-label={t("alarms.state")}>
          {[undefined, ...ORDER].map((state) => (
            <button
              type="button"
              key={state ?? ""}
              aria-pressed={(wanted ?? undefined) === state}
              onClick={() => setParams({ state })}
            >
              {state ? t(STATES[state].name) : t("alarms.any")}{" "}
              {asked.data && <small>{count(asked.data.alarms.filter((alarm) => !state || alarm.state === state).length)}</small>}
            </button>
          ))}
        </div>
      </Head>
      <Card>
        <Answer asked={asked} height={200}>
          {({ names, alarms }) =>
            sorted.length === 0 ? (
              <Empty text={alarms.length === 0 ? t("alarms.empty") : t("alarms.none")}>
                {alarms.length === 0 ? <code>openstack alarm create --name hot --type gnocchi_resources_threshold …</code> : <a href="#/alarms">{t("alarms.reset")}</a>}
              </Empty>
            ) : (
              <table>
                <thead>
                  <tr>
                    <th>{t("alarms.state")}</th>
                    <th>{t("alarms.name")}</th>
                    <th class="wide">{t("alarms.type")}</th>
                    {all && <th class="wide">{t("table.project")}</th>}
                    <th class="wide">{t("alarms.severity")}</th>
                    <th>{t("alarms.since")}</th>
                  </tr>
                </thead>
                <tbody>
                  {sorted.map((alarm) => (
                    <tr key={alarm.alarm_id}>
                      <td>
                        <StateTag state={alarm.state} />
                      </td>
                      <td>
                        <a href={link(["alarms", alarm.alarm_id])}>{alarm.name}</a>
                        {!alarm.enabled && <span class="tag">{t("alarms.disabled")}</span>}
                      </td>
                      <td class="wide quiet">{alarm.type}</td>
                      {all && <td class="wide quiet">{projectName(names, alarm.project_id)}</td>}
                      <td class="wide quiet">{alarm.severity}</td>
                      <td>
                        <Time at={alarm.state_timestamp} relative />
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )
          }
        </Answer>
      </Card>
    </>
  );
}

function ruleOf(alarm: Alarm): Rule {
  return ((alarm as unknown as Record<string, Rule>)[`${alarm.type}_rule`] ?? {}) as Rule;
}

function One({ id, params }: { id: string; params: URLSearchParams }) {
  const asked = useAsked(`alarm ${id}`, (signal) => ask<Alarm>(`alarming/v2/alarms/${encodeURIComponent(id)}`, { signal }), REFRESH_MS);
  const history = useAsked(`history ${id}`, (signal) => ask<Change[]>(`alarming/v2/alarms/${encodeURIComponent(id)}/history`, { signal }), REFRESH_MS);
  const alarm = asked.data;
  return (
    <>
      <Head title={alarm?.name ?? t("alarms.title")} note={<a href="#/alarms">{t("alarms.title")}</a>}>
        {alarm && <StateTag state={alarm.state} />}
      </Head>
      <Answer asked={asked} height={120}>
        {(alarm) => (
          <>
            <Card class="facts">
              <p>{alarm.state_reason}</p>
              <dl>
                <div>
                  <dt>{t("alarms.since")}</dt>
                  <dd>
                    <Time at={alarm.state_timestamp} />
                  </dd>
                </div>
                <div>
                  <dt>{t("alarms.type")}</dt>
                  <dd>{alarm.type}</dd>
                </div>
                <div>
                  <dt>{t("alarms.severity")}</dt>
                  <dd>{alarm.severity}</dd>
                </div>
                <div>
                  <dt>{t("alarms.notices")}</dt>
                  <dd>{alarm.alarm_actions.length + alarm.ok_actions.length + alarm.insufficient_data_actions.length || t("alarms.nobody")}</dd>
                </div>
                {Object.entries(ruleOf(alarm)).map(([name, value]) => (
                  <div key={name}>
                    <dt>{name}</dt>
                    <dd>
                      {name === "resource_id" && typeof value === "string" ? (
                        <a href={link(["guests", value])}>
                          <code>{value}</code>
                        </a>
                      ) : (
                        <code>{typeof value === "object" ? JSON.stringify(value) : String(value)}</code>
                      )}
                    </dd>
                  </div>
                ))}
              </dl>
            </Card>
            <WhatIf alarm={alarm} params={params} />
          </>
        )}
      </Answer>
      <Card title={t("alarms.history")}>
        <Answer asked={history}>
          {(changes) =>
            changes.length === 0 ? (
              <Empty text={t("alarms.nohistory")} />
            ) : (
              <table>
                <tbody>
                  {changes.map((change) => (
                    <tr key={change.event_id}>
                      <td class="when">
                        <Time at={change.timestamp} />
                      </td>
                      <td>{told(change)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )
          }
        </Answer>
      </Card>
    </>
  );
}

function told(change: Change) {
  const known: Record<string, Key> = { creation: "alarms.created", "rule change": "alarms.changed", deletion: "alarms.deleted" };
  let detail: Record<string, unknown> = {};
  try {
    detail = JSON.parse(change.detail) as Record<string, unknown>;
  } catch {
    // Shown as it is, below.
  }
  if (change.type === "state transition" && typeof detail.state === "string") {
    return (
      <>
        <StateTag state={detail.state as State} /> <span class="quiet">{String(detail.transition_reason ?? "")}</span>
      </>
    );
  }
  const words = known[change.type];
  return (
    <>
      {words ? t(words) : change.type} {change.type === "rule change" && <code>{change.detail.slice(0, 300)}</code>}
    </>
  );
}

/** When the rule, or a changed one, would have fired in the span that is looked at. */
function WhatIf({ alarm, params }: { alarm: Alarm; params: URLSearchParams }) {
  const rule = ruleOf(alarm);
  const span = useSpan(params, "24h");
  const hasThreshold = typeof rule.threshold === "number";
  const [changes, setChanges] = useState<Rule>({});
  const [draft, setDraft] = useState<Rule>({});
  const asked = useAsked(`test ${alarm.alarm_id} ${span.key} ${JSON.stringify(changes)}`, (signal) => {
    const time = (seconds: number) => new Date(seconds * 1000).toISOString();
    const when = { start: time(span.from), stop: time(span.to) };
    const changed = Object.keys(changes).length > 0;
    const body = changed
      ? {
          name: alarm.name,
          type: alarm.type,
          repeat_actions: alarm.repeat_actions,
          time_constraints: alarm.time_constraints,
          [`${alarm.type}_rule`]: { ...rule, ...changes },
          ...when,
        }
      : { alarm_id: alarm.alarm_id, ...when };
    return ask<Timeline>("alarming/v2/alarms/test", { body, signal });
  });
  const field = (name: string, label: Key, step: string) => (
    <label>
      {t(label)}
      <input
        type="number"
        step={step}
        value={String(draft[name] ?? changes[name] ?? rule[name] ?? "")}
        onInput={(event) => setDraft({ ...draft, [name]: Number(event.currentTarget.value) })}
      />
    </label>
  );
  const threshold = (changes.threshold ?? rule.threshold) as number | undefined;
  return (
    <Card title={t("alarms.whatif")} note={t("alarms.whatif.note")} tools={<SpanPicker span={span} params={params} />}>
      {hasThreshold && (
        <form
          class="filters"
          onSubmit={(event) => {
            event.preventDefault();
            setChanges({ ...changes, ...draft });
          }}
        >
          {field("threshold", "alarms.threshold", "any")}
          {field("evaluation_periods", "alarms.periods", "1")}
          <button type="submit" class="primary">
            {t("alarms.try")}
          </button>
          {Object.keys(changes).length > 0 && (
            <button
              type="button"
              onClick={() => {
                setChanges({});
                setDraft({});
              }}
            >
              {t("alarms.asis")}
            </button>
          )}
        </form>
      )}
      {asked.error && <Failure error={asked.error} />}
      {!asked.error && !asked.data && <Waiting height={220} />}
      {!asked.error && asked.data && <Tried timeline={asked.data} level={threshold} name={alarm.name} />}
    </Card>
  );
}

function Tried({ timeline, level, name }: { timeline: Timeline; level: number | undefined; name: string }) {
  if (timeline.windows.length === 0 && timeline.transitions.length === 0) return <Empty text={t("alarms.nowindows")} />;
  const times = timeline.windows.map((window) => secondsOf(window.end));
  const bands: Band[] = [];
  timeline.windows.forEach((window, index) => {
    const at = times[index]!;
    const next = times[index + 1] ?? at;
    const last = bands.at(-1);
    if (window.state !== "alarm") return;
    if (last && last.to === at) last.to = next;
    else bands.push({ from: at, to: next, kind: "bad" });
  });
  const fired = timeline.transitions.filter((turn) => turn.current === "alarm").length;
  const hasValues = timeline.windows.some((window) => window.value != null);
  return (
    <>
      <p class="quiet">{t("alarms.fired", { n: count(fired) })}</p>
      {hasValues && (
        <Chart
          label={name}
          times={times}
          lines={[{ name: t("alarms.value"), values: timeline.windows.map((window) => window.value) }]}
          unit=""
          bands={bands}
          {...(level === undefined ? {} : { level })}
          onZoom={zoomTo}
          onZoomOut={zoomOut}
        />
      )}
      <ul class="turns">
        {timeline.transitions.slice(-20).reverse().map((turn) => (
          <li key={turn.timestamp}>
            <Time at={turn.timestamp} /> <StateTag state={turn.current} /> <span class="quiet">{turn.reason}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
