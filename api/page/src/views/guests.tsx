// All guests that the reader may see, to be searched, sorted and opened.
import { useMemo, useState } from "preact/hooks";
import { metricApi, REFRESH_MS, useAsked } from "../ask";
import { count, measured } from "../format";
import { Answer, Bar, Card, Empty, Guest, Head, projectName, projectNames, Time } from "../parts";
import { instant } from "../prometheus";
import { link, setParams } from "../route";
import { t, type Key } from "../text";

/** A page of the list; the server's own limit. */
const PAGE = 1000;
/** Pages that are asked for: whoever has more guests searches. */
const PAGES_MAX = 20;
/** Rows shown at first; each is a little work for the browser. */
const ROWS_FIRST = 100;

interface Resource {
  id: string;
  display_name: string | null;
  project_id: string | null;
  host: string | null;
  flavor_name: string | null;
  started_at: string;
}

interface Row extends Resource {
  name: string;
  project: string;
  cpu: number | undefined;
  memory: number | undefined;
}

const ATTRIBUTES = ["id", "display_name", "project_id", "host", "flavor_name", "started_at"];

async function resources(signal: AbortSignal): Promise<Resource[]> {
  const all: Resource[] = [];
  for (let page = 0; page < PAGES_MAX; page++) {
    const marker = all.at(-1)?.id;
    const rows = await metricApi<Resource[]>("search/resource/instance", {
      body: { "=": { ended_at: null } },
      params: { attrs: ATTRIBUTES, limit: String(PAGE), sort: "id:asc", marker },
      signal,
    });
    all.push(...rows);
    if (rows.length < PAGE) break;
  }
  return all;
}

type Column = "name" | "project" | "host" | "flavor_name" | "cpu" | "memory" | "started_at";

const COLUMNS: { key: Column; name: Key; class?: string }[] = [
  { key: "name", name: "table.guest" },
  { key: "project", name: "table.project", class: "wide" },
  { key: "host", name: "table.host", class: "wide" },
  { key: "flavor_name", name: "table.flavor", class: "wide" },
  { key: "cpu", name: "table.cpu", class: "bars" },
  { key: "memory", name: "table.memory", class: "number" },
  { key: "started_at", name: "table.started", class: "wider" },
];

export function Guests({ params }: { params: URLSearchParams }) {
  const [shown, setShown] = useState(ROWS_FIRST);
  const asked = useAsked(
    "guests",
    async (signal) => {
      // Of a thousand guests the other labels are most of the answer.
      const newest = (name: string) => instant(`max by (resource_id) (${name})`, signal);
      const [list, cpu, memory, names] = await Promise.all([
        resources(signal),
        newest("cpu_util"),
        newest("memory_usage"),
        projectNames(),
      ]);
      const by = (rows: typeof cpu) => new Map(rows.map((row) => [row.labels.resource_id, row.value]));
      const [cpus, memories] = [by(cpu), by(memory)];
      return list.map<Row>((one) => ({
        ...one,
        name: one.display_name || one.id,
        project: projectName(names, one.project_id),
        cpu: cpus.get(one.id),
        memory: memories.get(one.id),
      }));
    },
    REFRESH_MS,
  );
  const search = params.get("search") ?? "";
  const [project, host] = [params.get("project"), params.get("host")];
  const sort = (params.get("sort") ?? "name") as Column;
  const isDown = params.get("order") === "down";
  const rows = useMemo(() => {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (row: Row) => {
      const text = `${row.name} ${row.id} ${row.project} ${row.host} ${row.flavor_name}`.toLowerCase();
      return (!project || row.project_id === project) && (!host || row.host === host) && words.every((word) => text.includes(word));
    };
    const compare = (a: Row, b: Row) => {
      const [one, other] = [a[sort], b[sort]];
      if (typeof one === "number" || typeof other === "number") return Number(one ?? -1) - Number(other ?? -1);
      return String(one ?? "").localeCompare(String(other ?? ""), undefined, { numeric: true });
    };
    const found = (asked.data ?? []).filter(fits).sort(compare);
    return isDown ? found.reverse() : found;
  }, [asked.data, search, project, host, sort, isDown]);

  const sortBy = (column: Column) => {
    const down = column === sort ? !isDown : column === "cpu" || column === "memory" || column === "started_at";
    setParams({ sort: column, order: down ? "down" : undefined }, true);
  };
  const projectShown = project && (asked.data?.find((row) => row.project_id === project)?.project ?? project);
  return (
    <>
      <Head title={t("guests.title")} note={asked.data ? t("guests.count", { n: count(rows.length), all: count(asked.data.length) }) : undefined}>
        <input
          type="search"
          placeholder={t("guests.search")}
          aria-label={t("guests.search")}
          value={search}
          onInput={(event) => setParams({ search: event.currentTarget.value }, true)}
        />
      </Head>
      {(project || host) && (
        <p class="chips">
          {projectShown && (
            <button type="button" onClick={() => setParams({ project: undefined })}>
              {t("table.project")}: {projectShown} <span aria-hidden="true">×</span>
            </button>
          )}
          {host && (
            <button type="button" onClick={() => setParams({ host: undefined })}>
              {t("table.host")}: {host} <span aria-hidden="true">×</span>
            </button>
          )}
        </p>
      )}
      <Card>
        <Answer asked={asked} height={300}>
          {(all) =>
            rows.length === 0 ? (
              <Empty text={all.length === 0 ? t("overview.empty") : t("guests.none")}>
                {all.length === 0 ? (
                  <a href={link(["missing"], { meter: "cpu_util" })}>{t("nav.missing")}</a>
                ) : (
                  <a href="#/guests">{t("guests.reset")}</a>
                )}
              </Empty>
            ) : (
              <table>
                <thead>
                  <tr>
                    {COLUMNS.map((column) => (
                      <th
                        key={column.key}
                        class={column.class}
                        aria-sort={column.key === sort ? (isDown ? "descending" : "ascending") : undefined}
                      >
                        <button type="button" class="plain" onClick={() => sortBy(column.key)}>
                          {t(column.name)}
                          <span aria-hidden="true">{column.key === sort ? (isDown ? " ↓" : " ↑") : ""}</span>
                        </button>
                      </th>
                    ))}
                  </tr>
                </thead>
                <tbody>
                  {rows.slice(0, shown).map((row) => (
                    <tr key={row.id}>
                      <td>
                        <Guest id={row.id} name={row.display_name} />
                      </td>
                      <td class="wide quiet">{row.project}</td>
                      <td class="wide quiet">
                        <span class="clamp" title={row.host ?? undefined}>
                          {row.host}
                        </span>
                      </td>
                      <td class="wide quiet">
                        <span class="clamp" title={row.flavor_name ?? undefined}>
                          {row.flavor_name}
                        </span>
                      </td>
                      <td class="bars">{row.cpu === undefined ? "–" : <Bar share={row.cpu / 100} text={measured(row.cpu, "%")} />}</td>
                      <td class="number">{measured(row.memory, "MiB")}</td>
                      <td class="wider quiet">
                        <Time at={row.started_at} relative />
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )
          }
        </Answer>
        {rows.length > shown && (
          <p class="more">
            <button type="button" onClick={() => setShown(shown + 5 * ROWS_FIRST)}>
              {t("table.showmore", { n: count(rows.length - shown) })}
            </button>
          </p>
        )}
      </Card>
    </>
  );
}
