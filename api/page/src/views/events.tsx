// What happened: events by type and time, with their traits; older ones page by page.
import { useState } from "preact/hooks";
import { ask, useAsked } from "../ask";
import { Answer, Card, Empty, Guest, Head, projectName, projectNames, Time } from "../parts";
import { setParams } from "../route";
import { isOperator, type Session } from "../session";
import { t } from "../text";

export interface Event {
  message_id: string;
  event_type: string;
  generated: string;
  traits: { name: string; type: string; value: string }[];
}

const PAGE = 50;

export function Events({ params, session }: { params: URLSearchParams; session: Session }) {
  const type = params.get("type") ?? "";
  const trait = params.get("trait") ?? "";
  const all = isOperator(session) && params.get("own") !== "1";
  const key = `${type} ${trait} ${all}`;
  const types = useAsked("types", (signal) => ask<string[]>("event/v2/event_types", { signal }));
  const [older, setOlder] = useState<{ key: string; events: Event[]; ended: boolean }>({ key, events: [], ended: false });
  const page = (marker: string | undefined, signal?: AbortSignal) => {
    const fields: [string, string][] = [];
    if (type) fields.push(["event_type", type]);
    const [name, value] = split(trait);
    if (name && value) fields.push([name, value]);
    if (all) fields.push(["all_tenants", "True"]);
    return ask<Event[]>("event/v2/events", {
      params: {
        "q.field": fields.map(([field]) => field),
        "q.op": fields.map(() => "eq"),
        "q.value": fields.map(([, text]) => text),
        limit: String(PAGE),
        marker,
      },
      ...(signal ? { signal } : {}),
    });
  };
  const asked = useAsked(key, (signal) => page(undefined, signal));
  const names = useAsked("names", projectNames);
  const rest = older.key === key ? older : { key, events: [], ended: false };
  const events = [...(asked.data ?? []), ...rest.events];
  const more = async () => {
    const next = await page(events.at(-1)?.message_id);
    setOlder({ key, events: [...rest.events, ...next], ended: next.length < PAGE });
  };
  return (
    <>
      <Head title={t("events.title")} note={t("events.note")}>
        <button type="button" onClick={asked.again}>
          {t("refresh")}
        </button>
      </Head>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <label>
          {t("events.type")}
          <select value={type} onChange={(event) => setParams({ type: event.currentTarget.value })}>
            <option value="">{t("events.anytype")}</option>
            {[...new Set([...(types.data ?? []), ...(type ? [type] : [])])].map((one) => (
              <option key={one} value={one}>
                {one}
              </option>
            ))}
          </select>
        </label>
        <label>
          {t("events.trait")}
          <input
            type="search"
            placeholder="host=compute1"
            value={trait}
            spellcheck={false}
            onChange={(event) => setParams({ trait: event.currentTarget.value })}
          />
        </label>
        {isOperator(session) && (
          <label class="check">
            <input type="checkbox" checked={!all} onChange={(event) => setParams({ own: event.currentTarget.checked ? "1" : undefined })} />
            {t("events.own", { project: session.project.name })}
          </label>
        )}
      </form>
      <Card>
        <Answer asked={asked} height={300}>
          {() =>
            events.length === 0 ? (
              <Empty text={type || trait ? t("events.none") : t("events.empty")}>
                {(type || trait) && <a href="#/events">{t("events.reset")}</a>}
              </Empty>
            ) : (
              <EventTable events={events} names={names.data} />
            )
          }
        </Answer>
        {events.length >= PAGE && !rest.ended && (
          <p class="more">
            <button type="button" onClick={() => void more()}>
              {t("events.older")}
            </button>
          </p>
        )}
      </Card>
    </>
  );
}

function split(text: string): [string, string] {
  const cut = text.indexOf("=");
  return cut < 0 ? ["", ""] : [text.slice(0, cut).trim(), text.slice(cut + 1).trim()];
}

export function EventTable({ events, names }: { events: Event[]; names?: Map<string, string> | undefined }) {
  return (
    <ul class="events">
      {events.map((event) => {
        const value = (name: string) => event.traits.find((one) => one.name === name)?.value;
        const about = value("display_name") ?? value("name") ?? value("user_name") ?? value("initiator_name");
        const instance = event.event_type.startsWith("compute.instance.") ? (value("instance_id") ?? value("resource_id")) : undefined;
        const project = value("project_id") ?? value("tenant_id");
        return (
          <li key={event.message_id}>
            <details>
              <summary>
                <Time at={event.generated} />
                <b>{event.event_type}</b>
                <span class="about">
                  {about} {value("state") && <em>{value("state")}</em>} {value("outcome") && <em>{value("outcome")}</em>}
                </span>
              </summary>
              <dl class="traits">
                {instance && (
                  <div>
                    <dt>{t("table.guest")}</dt>
                    <dd>
                      <Guest id={instance} name={about} />
                    </dd>
                  </div>
                )}
                {project && names && (
                  <div>
                    <dt>{t("table.project")}</dt>
                    <dd>{projectName(names, project)}</dd>
                  </div>
                )}
                {event.traits.map((one) => (
                  <div key={one.name}>
                    <dt>{one.name}</dt>
                    <dd>{one.type === "datetime" ? <Time at={one.value} /> : one.value}</dd>
                  </div>
                ))}
              </dl>
            </details>
          </li>
        );
      })}
    </ul>
  );
}
