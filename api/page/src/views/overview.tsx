// The cloud at a glance: guests, projects and hosts, now and over time.
import { ask, REFRESH_MS, useAsked } from "../ask";
import { Spark } from "../chart";
import { count, measured } from "../format";
import { Answer, Bar, Card, Empty, Guest, Head, projectName, projectNames } from "../parts";
import { instant, latest, range, smooth, sum, windowOf, type Row, type Series, type Window } from "../prometheus";
import { link } from "../route";
import { isOperator, type Session } from "../session";
import { SpanPicker, useSpan } from "../span";
import { t } from "../text";

/** Points of a sparkline. */
const POINTS = 72;
const BUSIEST = 8;

interface Loads {
  window: Window;
  cpu: Series[];
  guests: Series[];
  names: Map<string, string>;
}

interface Flows {
  used: Series[];
  /** Of all guests that report it. */
  memory: number | null;
  /** Network and disk. */
  flows: (number | null)[][];
}

interface Machines {
  cpu: Series[];
  used: Row[];
  total: Row[];
}

export function Overview({ params, session }: { params: URLSearchParams; session: Session }) {
  const span = useSpan(params, "24h");
  const window = windowOf(span.from, span.to, POINTS, 300);
  const key = span.key;
  const loads = useAsked<Loads>(
    `loads ${key}`,
    async (signal) => {
      const cpu = smooth("cpu_util", window);
      // One question, because both are about the same points: those of every guest.
      const told = (way: string) => `label_replace(${way} by (project_id, host) (${cpu}), "way", "${way}", "", "")`;
      const [both, names] = await Promise.all([range(`${told("sum")} or ${told("count")}`, window, signal), projectNames()]);
      const of = (way: string) => both.filter((one) => one.labels.way === way);
      return { window, cpu: of("sum"), guests: of("count"), names };
    },
    REFRESH_MS,
  );
  const flows = useAsked<Flows>(
    `flows ${key}`,
    async (signal) => {
      const both = (...names: string[]) => range(names.map((name) => `sum(${smooth(name, window)})`).join(" + "), window, signal);
      const [used, all, ...flows] = await Promise.all([
        range(`sum by (project_id) (${smooth("memory_usage", window)})`, window, signal),
        instant("sum(memory_available)", signal),
        both("network_incoming_bytes_rate", "network_outgoing_bytes_rate"),
        both("disk_device_read_bytes_rate", "disk_device_write_bytes_rate"),
      ]);
      return { used, memory: all[0]?.value ?? null, flows: flows.map((series) => series[0]?.values ?? []) };
    },
    REFRESH_MS,
  );
  const machines = useAsked<Machines>(
    `machines ${key}`,
    async (signal) => {
      const [cpu, used, total] = await Promise.all([
        range(smooth("hardware_cpu_util", window), window, signal),
        instant("hardware_memory_used", signal),
        instant("hardware_memory_total", signal),
      ]);
      return { cpu, used, total };
    },
    REFRESH_MS,
  );
  const fired = useAsked<number>(
    `fired ${key}`,
    async (signal) => {
      const fields: [string, string][] = [["state", "alarm"], ...(isOperator(session) ? [["all_projects", "true"] as [string, string]] : [])];
      const params = { "q.field": fields.map(([name]) => name), "q.op": fields.map(() => "eq"), "q.value": fields.map(([, value]) => value) };
      return (await ask<unknown[]>("alarming/v2/alarms", { params, signal })).length;
    },
    REFRESH_MS,
  );
  const busiest = useAsked<Row[]>(`busiest ${key}`, (signal) => instant(`topk(${BUSIEST}, cpu_util)`, signal), REFRESH_MS);

  return (
    <>
      <Head title={t("overview.title")} note={isOperator(session) ? t("overview.all") : t("overview.own", { project: session.project.name })}>
        <SpanPicker span={span} params={params} />
      </Head>
      <Answer asked={loads} height={110}>
        {(data) =>
          data.guests.length === 0 ? (
            <Card>
              <Empty text={t("overview.empty")}>
                <a href={link(["missing"], { meter: "cpu_util" })}>{t("nav.missing")}</a>
              </Empty>
            </Card>
          ) : (
            <Tiles loads={data} flows={flows.data} machines={machines.data} fired={fired.data} />
          )
        }
      </Answer>
      <div class="columns">
        <Card title={t("overview.projects")}>
          <Answer asked={loads}>{(data) => <Projects loads={data} flows={flows.data} />}</Answer>
        </Card>
        <div class="stack">
          <Card title={t("overview.busiest")}>
            <Answer asked={busiest}>{(rows) => <Busiest rows={rows} names={loads.data?.names} />}</Answer>
          </Card>
          {(isOperator(session) || (machines.data?.cpu.length ?? 0) > 0) && (
            <Card title={t("overview.hosts")}>
              <Answer asked={machines}>{(data) => <Hosts machines={data} loads={loads.data} />}</Answer>
            </Card>
          )}
        </div>
      </div>
    </>
  );
}

function columnsOf(series: Series[]): (number | null)[][] {
  return series.map((one) => one.values);
}

function share(over: (number | null)[], under: (number | null)[]): (number | null)[] {
  return over.map((value, index) => (value != null && under[index] ? value / under[index]! : null));
}

function Tiles({ loads, flows, machines, fired }: { loads: Loads; flows: Flows | undefined; machines: Machines | undefined; fired: number | undefined }) {
  const guests = sum(columnsOf(loads.guests));
  const mean = share(sum(columnsOf(loads.cpu)), guests);
  const by = (label: string) => loads.window && distinct(loads.guests, label);
  const [projects, hosts] = [by("project_id"), by("host")];
  const used = sum(columnsOf(flows?.used ?? []));
  const memory = flows?.memory;
  const [network, disk] = [flows?.flows[0] ?? [], flows?.flows[1] ?? []];
  return (
    <div class="tiles">
      <Tile name={t("overview.guests")} value={count(latest(guests) ?? 0)} values={guests} href="#/guests" color={0} />
      <Tile name={t("overview.projects")} value={count(latest(projects) ?? 0)} values={projects} color={3} />
      <Tile name={t("overview.hosts")} value={count(Math.max(latest(hosts) ?? 0, machines?.cpu.length ?? 0))} values={hosts} color={4} />
      <Tile name={t("overview.cpu")} value={measured(latest(mean), "%")} values={mean} color={1} />
      <Tile name={t("overview.memory")} value={measured(latest(used), "MiB")} {...(memory ? { note: t("overview.of", { all: measured(memory, "MiB") }) } : {})} values={used} color={2} />
      <Tile name={t("overview.network")} value={measured(latest(network), "B/s")} values={network} color={5} />
      <Tile name={t("overview.disk")} value={measured(latest(disk), "B/s")} values={disk} color={6} />
      <a class="tile card" href="#/alarms?state=alarm">
        <span class="name">{t("overview.alarms")}</span>
        <strong class={fired ? "bad" : ""}>{fired === undefined ? "–" : count(fired)}</strong>
      </a>
    </div>
  );
}

/** How many different values a label has at each time. */
function distinct(series: Series[], label: string): (number | null)[] {
  const length = series[0]?.values.length ?? 0;
  return Array.from({ length }, (_, index) => {
    const seen = new Set(series.filter((one) => one.values[index] != null).map((one) => one.labels[label] ?? ""));
    return seen.size || null;
  });
}

function Tile(properties: { name: string; value: string; note?: string; values: (number | null)[]; href?: string; color: number }) {
  const body = (
    <>
      <span class="name">{properties.name}</span>
      <strong>
        {properties.value} {properties.note && <small>{properties.note}</small>}
      </strong>
      <Spark values={properties.values} label={properties.name} color={properties.color} />
    </>
  );
  return properties.href ? (
    <a class="tile card" href={properties.href}>
      {body}
    </a>
  ) : (
    <div class="tile card">{body}</div>
  );
}

/** `compute2` before `compute10`. */
function ordered(one: string, other: string): number {
  return one.localeCompare(other, undefined, { numeric: true });
}

/** Rows that a table shows before it says how many more there are. */
const ROWS_MAX = 20;

function Projects({ loads, flows }: { loads: Loads; flows: Flows | undefined }) {
  const ids = [...new Set(loads.guests.map((one) => one.labels.project_id ?? ""))];
  const of = (series: Series[], id: string) => sum(columnsOf(series.filter((one) => (one.labels.project_id ?? "") === id)));
  const rows = ids
    .map((id) => {
      const guests = of(loads.guests, id);
      return { id, guests: latest(guests) ?? 0, cpu: share(of(loads.cpu, id), guests), memory: latest(of(flows?.used ?? [], id)) };
    })
    .filter((row) => row.guests > 0)
    .sort((a, b) => b.guests - a.guests || ordered(projectName(loads.names, a.id), projectName(loads.names, b.id)));
  if (rows.length === 0) return <Empty text={t("overview.noprojects")} />;
  return (
    <>
      <table>
        <thead>
          <tr>
            <th>{t("table.project")}</th>
            <th class="number">{t("table.guests")}</th>
            <th class="number wide">{t("table.memory")}</th>
            <th class="number">{t("table.cpu")}</th>
            <th class="sparks">
              <span class="unseen">{t("table.course")}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, ROWS_MAX).map((row) => (
            <tr key={row.id}>
              <td>
                <a href={link(["guests"], { project: row.id })} title={row.id}>
                  {projectName(loads.names, row.id)}
                </a>
              </td>
              <td class="number">{count(row.guests)}</td>
              <td class="number wide">{measured(row.memory, "MiB")}</td>
              <td class="number">{measured(latest(row.cpu), "%")}</td>
              <td class="sparks">
                <Spark values={row.cpu} label={t("table.cpu")} color={1} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > ROWS_MAX && <p class="quiet more">{t("table.more", { n: rows.length - ROWS_MAX })}</p>}
    </>
  );
}

function Busiest({ rows, names }: { rows: Row[]; names: Map<string, string> | undefined }) {
  if (rows.length === 0) return <Empty text={t("overview.nobusiest")} />;
  return (
    <table>
      <thead>
        <tr>
          <th>{t("table.guest")}</th>
          <th class="wide">{t("table.project")}</th>
          <th class="bars">{t("table.cpu")}</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(({ labels, value }) => (
          <tr key={labels.resource_id}>
            <td>
              <Guest id={labels.resource_id ?? ""} name={labels.display_name} />
            </td>
            <td class="wide quiet">{projectName(names, labels.project_id)}</td>
            <td class="bars">
              <Bar share={value / 100} text={measured(value, "%")} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Hosts({ machines, loads }: { machines: Machines; loads: Loads | undefined }) {
  const name = (labels: Record<string, string>) => labels.host_name || labels.original_resource_id || labels.resource_id || "";
  const hosts = new Map<string, { cpu: (number | null)[]; guests: number; used?: number; total?: number }>();
  for (const one of loads?.guests ?? []) {
    const host = one.labels.host;
    if (!host) continue;
    const entry = hosts.get(host) ?? { cpu: [], guests: 0 };
    entry.guests += latest(one.values) ?? 0;
    hosts.set(host, entry);
  }
  for (const one of machines.cpu) {
    const host = name(one.labels);
    hosts.set(host, { ...(hosts.get(host) ?? { guests: 0 }), cpu: one.values });
  }
  for (const [rows, field] of [[machines.used, "used"], [machines.total, "total"]] as const) {
    for (const row of rows) {
      const entry = hosts.get(name(row.labels));
      if (entry) entry[field] = row.value;
    }
  }
  if (hosts.size === 0) return <Empty text={t("overview.nohosts")} />;
  const rows = [...hosts].sort((a, b) => b[1].guests - a[1].guests || ordered(a[0], b[0]));
  return (
    <>
      <table>
        <thead>
          <tr>
            <th>{t("table.host")}</th>
            <th class="number">{t("table.guests")}</th>
            <th class="wide bars">{t("table.memory")}</th>
            <th class="number">{t("table.cpu")}</th>
            <th class="sparks">
              <span class="unseen">{t("table.course")}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, ROWS_MAX).map(([host, row]) => (
            <tr key={host}>
              <td>
                <a href={link(["guests"], { host })} title={host}>
                  {host}
                </a>
              </td>
              <td class="number">{count(row.guests)}</td>
              <td class="wide bars">
                {row.used !== undefined && row.total ? <Bar share={row.used / row.total} text={measured(row.used, "KB")} /> : "–"}
              </td>
              <td class="number">{measured(latest(row.cpu), "%")}</td>
              <td class="sparks">
                <Spark values={row.cpu} label={t("table.cpu")} color={0} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > ROWS_MAX && <p class="quiet more">{t("table.more", { n: rows.length - ROWS_MAX })}</p>}
    </>
  );
}
