// One guest: what it is, what it does over time, what happened to it.
import { ask, metricApi, REFRESH_MS, useAsked } from "../ask";
import { Chart, type Line, type Mark } from "../chart";
import { secondsOf } from "../format";
import { Answer, Card, Empty, Head, projectName, projectNames, Time } from "../parts";
import { quoted, range, smooth, timesOf, windowOf, type Series } from "../prometheus";
import { link } from "../route";
import { SpanPicker, useSpan, zoomOut, zoomTo } from "../span";
import { t } from "../text";
import { EventTable, type Event } from "./events";

/** Points of a plot. */
const POINTS = 360;
const EVENTS_MAX = 50;

interface Guest {
  id: string;
  display_name: string | null;
  project_id: string | null;
  host: string | null;
  flavor_name: string | null;
  image_ref: string | null;
  started_at: string;
  ended_at: string | null;
}

/** What is plotted together, and the unit of it. */
interface Plot {
  title: string;
  unit: string;
  lines: Line[];
}

function named(series: Series[], name: string, color: number, extra: Partial<Line> = {}): Line[] {
  return series.slice(0, 1).map((one) => ({ name, values: one.values, color, ...extra }));
}

export function Instance({ id, params }: { id: string; params: URLSearchParams }) {
  const span = useSpan(params, "24h");
  const window = windowOf(span.from, span.to, POINTS);
  const guest = useAsked(`guest ${id}`, async (signal) => {
    const [one, names] = await Promise.all([
      metricApi<Guest>(`resource/instance/${encodeURIComponent(id)}`, { signal }),
      projectNames(),
    ]);
    return { ...one, project: projectName(names, one.project_id) };
  });
  const plots = useAsked(
    `plots ${id} ${span.key}`,
    async (signal) => {
      const own = (name: string) => smooth(`${name}{resource_id=${quoted(id)}}`, window);
      const parts = (name: string) => `sum(${smooth(`${name}{instance_id=${quoted(id)}}`, window)})`;
      const queries = [
        own("cpu_util"),
        own("memory_usage"),
        own("memory_resident"),
        own("memory"),
        parts("disk_device_read_bytes_rate"),
        parts("disk_device_write_bytes_rate"),
        parts("network_incoming_bytes_rate"),
        parts("network_outgoing_bytes_rate"),
      ];
      const [cpu, used, resident, memory, read, written, incoming, outgoing] = (await Promise.all(
        queries.map((query) => range(query, window, signal)),
      )) as [Series[], Series[], Series[], Series[], Series[], Series[], Series[], Series[]];
      const plots: Plot[] = [
        { title: t("instance.cpu"), unit: "%", lines: named(cpu, t("instance.cpu.used"), 0, { fill: true }) },
        {
          title: t("instance.memory"),
          unit: "MiB",
          lines: [
            ...named(used, t("instance.memory.used"), 2, { fill: true }),
            ...named(resident, t("instance.memory.resident"), 3),
            ...named(memory, t("instance.memory.all"), 7, { dash: true }),
          ],
        },
        { title: t("instance.disk"), unit: "B/s", lines: [...named(read, t("instance.read"), 0), ...named(written, t("instance.written"), 1)] },
        { title: t("instance.network"), unit: "B/s", lines: [...named(incoming, t("instance.in"), 0), ...named(outgoing, t("instance.out"), 1)] },
      ];
      return { times: timesOf(window), plots };
    },
    span.isLive ? REFRESH_MS : undefined,
  );
  const events = useAsked(`events ${id}`, (signal) =>
    ask<Event[]>("event/v2/events", {
      params: { "q.field": "resource_id", "q.op": "eq", "q.value": id, limit: String(EVENTS_MAX) },
      signal,
    }),
  );
  const marks: Mark[] = (events.data ?? []).map((event) => ({ at: secondsOf(event.generated), name: event.event_type }));
  const name = guest.data?.display_name || id;
  if (guest.error?.status === 404) {
    return (
      <>
        <Head title={t("instance.title")} />
        <Card>
          <Empty text={t("instance.missing", { id })}>
            <a href="#/guests">{t("nav.guests")}</a>
          </Empty>
        </Card>
      </>
    );
  }
  return (
    <>
      <Head title={name} note={<code>{id}</code>}>
        <SpanPicker span={span} params={params} />
      </Head>
      <Card class="facts">
        <Answer asked={guest} height={40}>
          {(one) => (
            <dl>
              <Fact name={t("table.project")}>
                <a href={link(["guests"], { project: one.project_id ?? undefined })}>{one.project}</a>
              </Fact>
              <Fact name={t("table.host")}>{one.host ? <a href={link(["guests"], { host: one.host })}>{one.host}</a> : "–"}</Fact>
              <Fact name={t("table.flavor")}>{one.flavor_name ?? "–"}</Fact>
              <Fact name={t("table.started")}>
                <Time at={one.started_at} />
              </Fact>
              {one.ended_at && (
                <Fact name={t("table.ended")}>
                  <Time at={one.ended_at} />
                </Fact>
              )}
              <Fact name={t("instance.more")}>
                <a href={link(["explore"], { q: `cpu_util{resource_id=${quoted(id)}}` })}>{t("nav.explore")}</a>
                {" · "}
                <a href={link(["missing"], { meter: "cpu_util", resource: id })}>{t("nav.missing")}</a>
              </Fact>
            </dl>
          )}
        </Answer>
      </Card>
      <Answer asked={plots} height={500}>
        {(data) => (
          <div class="plots">
            {data.plots.map((plot) => (
              <Card key={plot.title} title={plot.title}>
                {plot.lines.length === 0 ? (
                  <Empty text={t("instance.nodata")}>
                    <a href={link(["missing"], { resource: id })}>{t("nav.missing")}</a>
                  </Empty>
                ) : (
                  <Chart
                    label={plot.title}
                    times={data.times}
                    lines={plot.lines}
                    unit={plot.unit}
                    marks={marks}
                    onZoom={zoomTo}
                    onZoomOut={zoomOut}
                  />
                )}
              </Card>
            ))}
          </div>
        )}
      </Answer>
      <Card title={t("instance.events")}>
        <Answer asked={events}>
          {(rows) => (rows.length === 0 ? <Empty text={t("instance.noevents")} /> : <EventTable events={rows} />)}
        </Answer>
      </Card>
    </>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
