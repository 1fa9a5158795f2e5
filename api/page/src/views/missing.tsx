// Why is my meter missing? Its way through the rooms, and the first place where it may have ended.
import type { ComponentChildren } from "preact";
import { ask, useAsked } from "../ask";
import { count, measured } from "../format";
import { Answer, Card, Guest, Head, short, Time } from "../parts";
import { link, setParams } from "../route";
import { t, type Key } from "../text";
import type { Refused } from "./health";

interface Known {
  name: string;
  unit: string;
  origin: "compute" | "host" | "central" | "notifications" | "derived";
  derived_from: string | null;
  every_s: number | null;
  is_made_here: boolean;
}

/** What a room knows of the meter since the server's start; numbers and reasons are for operators. */
interface Seen {
  room: string;
  passed: number | null;
  passed_at: number | null;
  failed: number | null;
  failed_at: number | null;
  failure: string | null;
}

interface Facts {
  now: number;
  known: Known[];
  seen: Seen[];
  /** Messages of any meter that could not be decoded; for operators. */
  quarantined: number;
  /** Other projects that have label sets of this name; for operators. */
  elsewhere: number;
  refused: Refused[];
  series: number;
  is_cut: boolean;
  newest_at: number | null;
  oldest_shown: { resource_id: string; type: string; name: string | null; last_at: number | null }[];
  resource: { id: string; type: string; project_id: string | null; started_at: number; ended_at: number | null } | null;
  similar: string[];
  is_operator: boolean;
}

type Verdict = "good" | "bad" | "unsure";

interface Step {
  name: Key;
  verdict: Verdict;
  text: ComponentChildren;
}

/** Without a known interval a meter is late after this. */
const LATE_S = 900;

export function Missing({ params }: { params: URLSearchParams }) {
  const meter = params.get("meter") ?? "";
  const resource = params.get("resource") ?? "";
  const names = useAsked("names", async (signal) => (await ask<{ data: string[] }>("prometheus/api/v1/label/__name__/values", { signal })).data);
  const asked = useAsked(meter ? `${meter} ${resource}` : undefined, (signal) =>
    ask<Facts>("page/v1/missing", { params: { meter, resource: resource || undefined }, signal }),
  );
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    const field = (name: string) => String(fields.get(name) ?? "").trim();
    if (field("meter") === meter && field("resource") === resource) asked.again();
    else setParams({ meter: field("meter"), resource: field("resource") });
  };
  return (
    <>
      <Head title={t("missing.title")} note={t("missing.note")} />
      <form class="filters" onSubmit={submit} key={`${meter} ${resource}`}>
        <label>
          {t("cardinality.meter")}
          <input name="meter" list="meters" required defaultValue={meter} placeholder="cpu_util" spellcheck={false} autocomplete="off" />
          <datalist id="meters">
            {(names.data ?? []).map((name) => (
              <option key={name} value={name} />
            ))}
          </datalist>
        </label>
        <label>
          {t("missing.resource")}
          <input name="resource" defaultValue={resource} placeholder={t("missing.optional")} spellcheck={false} autocomplete="off" />
        </label>
        <button type="submit" class="primary">
          {t("missing.do")}
        </button>
      </form>
      {meter && (
        <Answer asked={asked} height={300}>
          {(facts) => {
            const steps = stepsOf(facts, meter, resource);
            const broken = steps.find((step) => step.verdict === "bad");
            return (
              <>
                <p class={`verdict ${broken ? "bad" : "good"}`} role="status">
                  {broken ? t("missing.ends", { step: t(broken.name) }) : t("missing.fine", { meter })}
                </p>
                <Card>
                  <ol class="steps">
                    {steps.map((step) => (
                      <li key={step.name} class={step.verdict}>
                        <i aria-hidden="true">{step.verdict === "good" ? "✓" : step.verdict === "bad" ? "✗" : "?"}</i>
                        <div>
                          <h2>{t(step.name)}</h2>
                          <div class="text">{step.text}</div>
                        </div>
                      </li>
                    ))}
                  </ol>
                </Card>
                {facts.oldest_shown.length > 0 && <Silent facts={facts} />}
              </>
            );
          }}
        </Answer>
      )}
    </>
  );
}

function stepsOf(facts: Facts, meter: string, resource: string): Step[] {
  return [made(facts), polled(facts), taken(facts), named(facts, meter, resource), recent(facts), visible(facts, resource)];
}

const ORIGINS: Record<Known["origin"], Key> = {
  compute: "missing.origin.compute",
  host: "missing.origin.host",
  central: "missing.origin.central",
  notifications: "missing.origin.notifications",
  derived: "missing.origin.derived",
};

/** Does anything make it? */
function made(facts: Facts): Step {
  const one = facts.known[0];
  if (one) {
    const text = one.derived_from ? (
      <>
        {t("missing.derived")} <a href={link(["missing"], { meter: one.derived_from })}>{one.derived_from}</a>
      </>
    ) : (
      t(ORIGINS[one.origin])
    );
    return { name: "missing.made", verdict: "good", text };
  }
  if (facts.series > 0 || facts.elsewhere > 0) return { name: "missing.made", verdict: "good", text: t("missing.made.others") };
  return {
    name: "missing.made",
    verdict: "bad",
    text: (
      <>
        {t("missing.made.nobody")}{" "}
        {facts.similar.length > 0 && (
          <>
            {t("missing.similar")}{" "}
            {facts.similar.map((name, index) => (
              <span key={name}>
                {index > 0 && ", "}
                <a href={link(["missing"], { meter: name })}>{name}</a>
              </span>
            ))}
          </>
        )}
      </>
    ),
  };
}

/** Is it polled, or told by notifications? */
function polled(facts: Facts): Step {
  const name: Key = "missing.polled";
  const one = facts.known[0];
  if (!one) return { name, verdict: facts.series > 0 ? "good" : "unsure", text: t("missing.polled.unknown") };
  if (one.origin === "derived") return { name, verdict: "good", text: t("missing.polled.derived") };
  if (!one.is_made_here) return { name, verdict: facts.series > 0 ? "good" : "unsure", text: t("missing.polled.elsewhere") };
  if (one.origin === "notifications") return { name, verdict: "good", text: <Told facts={facts} /> };
  if (one.every_s === null) return { name, verdict: "bad", text: t("missing.polled.not") };
  const rows = facts.seen.filter((row) => row.room === one.origin);
  const every = t("missing.polled.every", { every: measured(one.every_s, "s") });
  if (rows.length === 0) return { name, verdict: "unsure", text: `${every} ${t("missing.polled.notyet")}` };
  const passed = latestOf(rows.map((row) => row.passed_at));
  const failed = rows.find((row) => row.failed_at !== null && (passed === null || row.failed_at >= passed));
  if (failed) {
    return {
      name,
      verdict: "bad",
      text: (
        <>
          {t("missing.polled.failed")} <Time at={failed.failed_at} relative />
          {failed.failure && <code class="reason"> {failed.failure}</code>}
        </>
      ),
    };
  }
  const samples = facts.is_operator ? rows.reduce((sum, row) => sum + (row.passed ?? 0), 0) : null;
  return {
    name,
    verdict: samples === 0 ? "unsure" : "good",
    text: (
      <>
        {every} {t("missing.polled.last")} <Time at={passed} relative />
        {samples === 0 ? <> {t("missing.polled.nothing")}</> : samples !== null && <> {t("missing.polled.samples", { n: count(samples) })}</>}
      </>
    ),
  };
}

function latestOf(times: (number | null)[]): number | null {
  return times.reduce((latest, time) => (time !== null && (latest === null || time > latest) ? time : latest), null);
}

/** Of a meter that comes with notifications: when one came. */
function Told({ facts }: { facts: Facts }) {
  const row = facts.seen.find((row) => row.room === "notifications");
  return (
    <>
      {t("missing.polled.told")}
      {row && (
        <>
          {" "}
          {t("missing.polled.toldat")} <Time at={row.passed_at} relative />
        </>
      )}
      {!row && facts.is_operator && <> {t("missing.polled.untold")}</>}
    </>
  );
}

/** Was it refused? */
function taken(facts: Facts): Step {
  const name: Key = "missing.taken";
  const row = facts.seen.find((row) => row.room === "collector");
  if (facts.refused.length === 0) {
    const wasPolled = facts.seen.some((row) => row.room !== "collector" && (row.passed ?? 0) > 0);
    return {
      name,
      verdict: row ? "good" : wasPolled ? "bad" : facts.quarantined > 0 && facts.series === 0 ? "unsure" : "good",
      text: (
        <>
          {row ? (
            <>
              {t("missing.taken.last", { n: count(row.passed ?? 0) })} <Time at={row.passed_at} relative />
            </>
          ) : (
            t(wasPolled ? "missing.taken.none" : "missing.taken.yes")
          )}{" "}
          {facts.quarantined > 0 && !row && facts.series === 0 && <>{t("missing.taken.quarantined", { n: count(facts.quarantined) })} </>}
          {facts.is_operator && <a href="#/health">{t("nav.health")}</a>}
        </>
      ),
    };
  }
  const isOld = (one: Refused) => facts.newest_at !== null && one.last_at < facts.newest_at;
  return {
    name,
    verdict: facts.refused.every(isOld) ? "unsure" : "bad",
    text: (
      <ul>
        {facts.refused.map((one) => (
          <li key={`${one.room} ${one.reason} ${one.project_id}`}>
            {t("missing.refused", { n: count(one.count), room: one.room, reason: one.reason })} <Time at={one.last_at} relative />
            {one.resource_id && <code> {short(one.resource_id)}</code>}
          </li>
        ))}
      </ul>
    ),
  };
}

/** Is it in the index? */
function named(facts: Facts, meter: string, resource: string): Step {
  const name: Key = "missing.named";
  if (facts.series === 0 && facts.elsewhere > 0) return { name, verdict: "unsure", text: t("missing.named.no", { meter }) };
  if (facts.series === 0) return { name, verdict: "bad", text: resource ? t("missing.named.notof", { meter }) : t("missing.named.no", { meter }) };
  return { name, verdict: "good", text: t(facts.is_cut ? "missing.named.many" : "missing.named.yes", { n: count(facts.series) }) };
}

/** When was its last point? */
function recent(facts: Facts): Step {
  const name: Key = "missing.recent";
  if (facts.newest_at === null) return { name, verdict: facts.series > 0 ? "bad" : "unsure", text: t("missing.recent.never") };
  const late = Math.max(3 * (facts.known[0]?.every_s ?? 0), LATE_S);
  const isLate = facts.now - facts.newest_at > late && facts.known[0]?.origin !== "notifications";
  return {
    name,
    verdict: isLate ? "bad" : "good",
    text: (
      <>
        {isLate ? t("missing.recent.late") : t("missing.recent.yes")} <Time at={facts.newest_at} relative />
      </>
    ),
  };
}

/** May this project see it? */
function visible(facts: Facts, resource: string): Step {
  const name: Key = "missing.visible";
  if (resource && !facts.resource && facts.series === 0) return { name, verdict: "bad", text: facts.is_operator ? t("missing.visible.nothing") : t("missing.visible.not") };
  if (facts.resource?.ended_at) {
    return {
      name,
      verdict: "unsure",
      text: (
        <>
          {t("missing.visible.ended")} <Time at={facts.resource.ended_at} />
        </>
      ),
    };
  }
  if (facts.elsewhere > 0) {
    return { name, verdict: facts.series === 0 ? "bad" : "unsure", text: t("missing.visible.elsewhere", { n: count(facts.elsewhere) }) };
  }
  if (facts.series === 0) return { name, verdict: "unsure", text: facts.is_operator ? t("missing.visible.all") : t("missing.visible.own") };
  return { name, verdict: "good", text: facts.is_operator ? t("missing.visible.all") : t("missing.visible.yes") };
}

function Silent({ facts }: { facts: Facts }) {
  return (
    <Card title={t("missing.silent")} note={t("missing.silent.note")}>
      <table>
        <thead>
          <tr>
            <th>{t("missing.resource")}</th>
            <th class="wide">{t("cardinality.type")}</th>
            <th>{t("missing.lastpoint")}</th>
          </tr>
        </thead>
        <tbody>
          {facts.oldest_shown.map((one, index) => (
            <tr key={index}>
              <td>{one.type === "instance" ? <Guest id={one.resource_id} name={one.name} /> : one.name || short(one.resource_id)}</td>
              <td class="wide quiet">{one.type}</td>
              <td>
                <Time at={one.last_at} relative />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  );
}
