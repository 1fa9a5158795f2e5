// Where series come from: by project, by type of resource, by meter.
import { ask, useAsked } from "../ask";
import { count } from "../format";
import { Answer, Bar, Card, Empty, Head, projectName, projectNames } from "../parts";
import { link } from "../route";
import { t, type Key } from "../text";

interface Table {
  rows: { name: string; series: number; meters: number }[];
  different: number;
}

interface Cardinalities {
  series: number;
  is_cut: boolean;
  by_project: Table;
  by_type: Table;
  by_meter: Table;
}

/** Rows shown of each table. */
const ROWS_MAX = 30;

export function Cardinality({ params: _ }: { params: URLSearchParams }) {
  const asked = useAsked("cardinality", async (signal) => {
    const [counts, names] = await Promise.all([ask<Cardinalities>("page/v1/cardinality", { signal }), projectNames()]);
    return { counts, names };
  });
  return (
    <>
      <Head title={t("cardinality.title")} note={t("cardinality.note")}>
        {asked.data && <strong class="big">{t("cardinality.series", { n: count(asked.data.counts.series) })}</strong>}
      </Head>
      <Answer asked={asked} height={300}>
        {({ counts, names }) =>
          counts.series === 0 ? (
            <Card>
              <Empty text={t("cardinality.empty")} />
            </Card>
          ) : (
            <>
              {counts.is_cut && <p class="quiet">{t("cardinality.cut")}</p>}
              <div class="columns">
                <div class="stack">
                  <Counted
                    title="table.project"
                    table={counts.by_project}
                    all={counts.series}
                    name={(name) => projectName(names, name)}
                    href={(name) => (name ? link(["guests"], { project: name }) : undefined)}
                  />
                  <Counted title="cardinality.type" table={counts.by_type} all={counts.series} name={(name) => name || t("cardinality.free")} />
                </div>
                <Counted
                  title="cardinality.meter"
                  table={counts.by_meter}
                  all={counts.series}
                  name={(name) => name || t("cardinality.nameless")}
                  href={(name) => (name ? link(["explore"], { q: /^[a-zA-Z_:][\w:]*$/.test(name) ? name : `{__name__=${JSON.stringify(name)}}` }) : undefined)}
                />
              </div>
            </>
          )
        }
      </Answer>
    </>
  );
}

function Counted(properties: {
  title: Key;
  table: Table;
  all: number;
  name: (name: string) => string;
  href?: (name: string) => string | undefined;
}) {
  const { rows, different } = properties.table;
  const most = rows[0]?.series ?? 1;
  return (
    <Card title={t(properties.title)} note={count(different)}>
      <table>
        <thead>
          <tr>
            <th>{t(properties.title)}</th>
            {properties.title !== "cardinality.meter" && <th class="number">{t("cardinality.meters")}</th>}
            <th class="bars">{t("cardinality.count")}</th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, ROWS_MAX).map((row) => {
            const href = properties.href?.(row.name);
            return (
              <tr key={row.name}>
                <td>{href ? <a href={href}>{properties.name(row.name)}</a> : properties.name(row.name)}</td>
                {properties.title !== "cardinality.meter" && <td class="number">{count(row.meters)}</td>}
                <td class="bars">
                  <Bar share={row.series / most} text={count(row.series)} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {different > ROWS_MAX && <p class="quiet more">{t("table.more", { n: count(different - ROWS_MAX) })}</p>}
    </Card>
  );
}
