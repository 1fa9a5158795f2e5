// The pipeline: what each room took in and what became of it, how long it takes, what was refused and why.
import { ask, useAsked } from "../ask";
import { count, measured } from "../format";
import { Answer, Card, Empty, Head, projectName, projectNames, Time } from "../parts";
import { instant } from "../prometheus";
import { link } from "../route";
import { type Session } from "../session";
import { t, type Key } from "../text";

interface Room {
  room: string;
  received: number;
  stored: number;
  refused: Record<string, number>;
  dropped: Record<string, number>;
  waiting: number;
  is_conserved: boolean;
  steps: { step: string; count: number; mean_s: number; p99_s: number | null }[];
}

export interface Refused {
  room: string;
  reason: string;
  count: number;
  last_at: number;
  meter: string;
  resource_id: string;
  project_id: string | null;
}

interface Pipeline {
  now: number;
  rooms: Room[];
  readiness: { room: string; ready: boolean; reason: string }[];
  refused: Refused[];
  quarantined: { kept_at: string | null; origin: string; reason: string; bytes: number }[];
  quarantined_count: number;
}

/** The way of a sample; rooms that are not named come last. */
const ORDER = [
  "compute.slots", "host.slots", "central.slots", "compute", "host", "central", "cloud.outbox", "notifications", "publisher", "spool",
  "batches", "api", "collector", "derive", "engine", "store", "quarantine", "alarms", "notices",
];

const REFRESH_MS = 10_000;

function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((total, one) => total + one, 0);
}

export function Health(_: { session: Session }) {
  const asked = useAsked(
    "rooms",
    async (signal) => {
      const [pipeline, newest, names] = await Promise.all([
        ask<Pipeline>("page/v1/rooms", { signal }),
        instant("max(timestamp(cpu_util))", signal).catch(() => []),
        projectNames(),
      ]);
      return { pipeline, newest: newest[0]?.value, names };
    },
    REFRESH_MS,
  );
  return (
    <>
      <Head title={t("health.title")} note={t("health.note")} />
      <Answer asked={asked} height={400}>
        {({ pipeline, newest, names }) => {
          const place = (room: Room) => (ORDER.indexOf(room.room) + 1 || ORDER.length + 1);
          const rooms = [...pipeline.rooms].sort((a, b) => place(a) - place(b) || a.room.localeCompare(b.room));
          const lost = rooms.filter((room) => !room.is_conserved);
          return (
            <>
              <div class="tiles five">
                {pipeline.readiness.map((one) => (
                  <div class="tile card" key={one.room}>
                    <span class="name">{t(`health.${one.room}` as Key)}</span>
                    <strong class={one.ready ? "good" : "bad"}>{one.ready ? t("health.ready") : t("health.notready")}</strong>
                    <small class="quiet">{one.reason}</small>
                  </div>
                ))}
                <div class="tile card">
                  <span class="name">{t("health.lag")}</span>
                  <strong>{newest === undefined ? "–" : measured(Math.max(pipeline.now - newest, 0), "s")}</strong>
                  <small class="quiet">{t("health.lag.note")}</small>
                </div>
                <div class="tile card">
                  <span class="name">{t("health.conserved")}</span>
                  <strong class={lost.length === 0 ? "good" : "bad"}>
                    {lost.length === 0 ? t("health.conserved.yes") : lost.map((room) => room.room).join(", ")}
                  </strong>
                  <small class="quiet">{t("health.conserved.note")}</small>
                </div>
              </div>
              <Card title={t("health.rooms")}>
                <table class="rooms">
                  <thead>
                    <tr>
                      <th>{t("health.room")}</th>
                      <th class="number">{t("health.received")}</th>
                      <th class="number wide">{t("health.stored")}</th>
                      <th class="number">{t("health.refused")}</th>
                      <th class="number">{t("health.dropped")}</th>
                      <th class="number wide">{t("health.waiting")}</th>
                      <th class="wider">{t("health.reasons")}</th>
                      <th class="number wide">{t("health.p99")}</th>
                    </tr>
                  </thead>
                  <tbody>
                    {rooms.map((room) => (
                      <tr key={room.room} class={room.received === 0 && room.steps.length === 0 ? "idle" : ""}>
                        <td>
                          {room.room} {!room.is_conserved && <span class="bad">{t("health.lost")}</span>}
                        </td>
                        <td class="number">{count(room.received)}</td>
                        <td class="number wide">{count(room.stored)}</td>
                        <td class={`number ${sum(room.refused) > 0 ? "bad" : ""}`}>{count(sum(room.refused))}</td>
                        <td class="number">{count(sum(room.dropped))}</td>
                        <td class="number wide">{count(room.waiting)}</td>
                        <td class="wider quiet">
                          {[...Object.entries(room.refused), ...Object.entries(room.dropped)].map(([reason, n]) => (
                            <span class="tag" key={reason}>
                              {reason} {count(n)}
                            </span>
                          ))}
                        </td>
                        <td class="number wide" title={room.steps.map((step) => `${step.step}: ${measured(step.mean_s, "s")}`).join("\n")}>
                          {room.steps.map((step) => (
                            <div key={step.step}>
                              <span class="quiet">{step.step}</span> {step.p99_s === null ? "> 30 s" : `≤ ${measured(step.p99_s, "s")}`}
                            </div>
                          ))}
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </Card>
              <div class="columns">
                <Card title={t("health.refusedlately")}>
                  {pipeline.refused.length === 0 ? (
                    <Empty text={t("health.norefused")} />
                  ) : (
                    <table>
                      <thead>
                        <tr>
                          <th>{t("cardinality.meter")}</th>
                          <th>{t("health.reason")}</th>
                          <th class="wide">{t("table.project")}</th>
                          <th class="number">{t("health.count")}</th>
                          <th class="wide">{t("health.last")}</th>
                        </tr>
                      </thead>
                      <tbody>
                        {pipeline.refused.map((one) => (
                          <tr key={`${one.room} ${one.reason} ${one.meter} ${one.project_id}`}>
                            <td>
                              <a href={link(["missing"], { meter: one.meter })}>{one.meter}</a>
                            </td>
                            <td class="quiet">{one.reason}</td>
                            <td class="wide quiet">{projectName(names, one.project_id)}</td>
                            <td class="number">{count(one.count)}</td>
                            <td class="wide">
                              <Time at={one.last_at} relative />
                            </td>
                          </tr>
                        ))}
                      </tbody>
                    </table>
                  )}
                </Card>
                <Card title={t("health.quarantine")} note={count(pipeline.quarantined_count)}>
                  {pipeline.quarantined.length === 0 ? (
                    <Empty text={t("health.noquarantine")} />
                  ) : (
                    <table>
                      <thead>
                        <tr>
                          <th>{t("health.since")}</th>
                          <th>{t("health.origin")}</th>
                          <th>{t("health.reason")}</th>
                          <th class="number wide">{t("health.size")}</th>
                        </tr>
                      </thead>
                      <tbody>
                        {pipeline.quarantined.map((one, index) => (
                          <tr key={index}>
                            <td>
                              <Time at={one.kept_at} relative />
                            </td>
                            <td>{one.origin}</td>
                            <td class="quiet">{one.reason}</td>
                            <td class="number wide">{measured(one.bytes, "B")}</td>
                          </tr>
                        ))}
                      </tbody>
                    </table>
                  )}
                </Card>
              </div>
            </>
          );
        }}
      </Answer>
    </>
  );
}
