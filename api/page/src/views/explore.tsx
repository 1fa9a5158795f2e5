// Any question in PromQL, as a plot and as a table.
import { useEffect, useRef, useState } from "preact/hooks";
import { useAsked, REFRESH_MS } from "../ask";
import { Chart, type Line } from "../chart";
import type { Editor } from "../editor";
import { count, measured } from "../format";
import { Answer, Card, Empty, Head } from "../parts";
import { instant, range, timesOf, units, windowOf, type Row, type Series, type Units } from "../prometheus";
import { link, setParams } from "../route";
import { SpanPicker, useSpan, zoomOut, zoomTo } from "../span";
import { t, useLanguage } from "../text";
import { useTheme } from "../theme";

const POINTS = 300;
/** More lines than this are a carpet; the table has them all. */
const LINES_MAX = 40;
const ROWS_MAX = 500;

const EXAMPLES = [
  "cpu_util",
  "topk(5, avg_over_time(cpu_util[1h]))",
  "sum by (project_id) (memory_usage)",
  "sum by (instance_id) (rate(network_incoming_bytes[15m]))",
];

/** Labels that say the same as others, or nothing to a reader. */
const DULL = new Set(["__name__", "user_id", "image_ref", "created_at", "launched_at", "original_resource_id", "flavor_id", "availability_zone", "project_id"]);

/** What the unit of an answer is, as far as its text says. */
export function unitOf(query: string, known: Units): string {
  const names = [...query.matchAll(/[a-zA-Z_:][\w:]*/g)].map(([name]) => name).filter((name) => name in known);
  const bare = query.replace(/"(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\([\w\s,]*\)(?=\s*\()/g, "");
  if (new Set(names).size !== 1 || /\b(count|count_values|group|changes|resets|absent|stdvar|sgn|timestamp)\s*\(|[*/%^]|\bcount\b/.test(bare)) return "";
  const unit = known[names[0]!] ?? "";
  return /\b(rate|irate|deriv)\s*\(/.test(bare) && unit ? `${unit}/s` : unit;
}

/** The labels in which series differ, or the name if they do not. */
function namesOf(series: { labels: Record<string, string> }[]): string[] {
  const labels = [...new Set(series.flatMap((one) => Object.keys(one.labels)))];
  const different = labels.filter((label) => new Set(series.map((one) => one.labels[label] ?? "")).size > 1);
  const telling = different.filter((label) => !DULL.has(label));
  const best = ["display_name", "host_name", "name"].find((label) => telling.includes(label) && new Set(series.map((one) => one.labels[label])).size === series.length);
  const chosen = best ? [best] : telling.length > 0 ? telling : different;
  return series.map((one) => {
    const parts = chosen.filter((label) => one.labels[label]).map((label) => (chosen.length === 1 ? one.labels[label]! : `${label}=${one.labels[label]}`));
    return parts.join(" ") || one.labels.__name__ || t("explore.value");
  });
}

export function Explore({ params }: { params: URLSearchParams }) {
  const query = params.get("q") ?? "";
  const isTable = params.get("view") === "table";
  const span = useSpan(params, "6h");
  const window = windowOf(span.from, span.to, POINTS);
  const editor = useRef<Editor | undefined>(undefined);
  const place = useRef<HTMLDivElement>(null);
  const [ready, setReady] = useState(false);
  const theme = useTheme();
  useLanguage();
  const run = () => {
    const text = editor.current?.text().trim() ?? "";
    if (text === query) asked.again();
    else setParams({ q: text });
  };
  const latest = useRef(run);
  latest.current = run;

  useEffect(() => {
    let made: Editor | undefined;
    let gone = false;
    void import("../editor").then(({ makeEditor }) => {
      if (gone || !place.current) return;
      made = makeEditor(place.current, query, t("explore.query"), t("explore.hint"), () => latest.current());
      editor.current = made;
      setReady(true);
      if (!query) made.focus();
    });
    return () => {
      gone = true;
      made?.destroy();
      editor.current = undefined;
    };
  }, []);
  useEffect(() => editor.current?.setText(query), [query]);
  useEffect(() => editor.current?.relook(), [theme]);

  const asked = useAsked<{ series: Series[]; rows: Row[]; times: number[]; unit: string; took: number }>(
    query ? `${query} ${span.key} ${isTable}` : undefined,
    async (signal) => {
      const started = performance.now();
      const [series, rows, known] = await Promise.all([
        isTable ? [] : range(query, window, signal),
        isTable ? instant(query, signal, span.isLive ? undefined : span.to) : [],
        units().catch(() => ({})),
      ]);
      return { series, rows, times: timesOf(window), unit: unitOf(query, known), took: performance.now() - started };
    },
    span.isLive ? REFRESH_MS : undefined,
  );
  useEffect(() => {
    const place = asked.error && placeOf(asked.error.detail, query);
    if (asked.error && place) editor.current?.mark(place[0], place[1], asked.error.detail);
  }, [asked.error, query, ready]);

  return (
    <>
      <Head title={t("explore.title")} note={t("explore.note")}>
        <SpanPicker span={span} usual="6h" params={params} />
      </Head>
      <div class="ask">
        <div class="editor" ref={place} data-ready={ready} />
        <button type="button" class="primary" onClick={run}>
          {t("explore.run")}
        </button>
      </div>
      <Card
        {...(asked.data && query
          ? { note: t("explore.took", { n: count(isTable ? asked.data.rows.length : asked.data.series.length), ms: Math.round(asked.data.took) }) }
          : {})}
        tools={
          <div class="spans" role="group" aria-label={t("explore.form")}>
            <button type="button" aria-pressed={!isTable} onClick={() => setParams({ view: undefined })}>
              {t("explore.plot")}
            </button>
            <button type="button" aria-pressed={isTable} onClick={() => setParams({ view: "table" })}>
              {t("explore.table")}
            </button>
          </div>
        }
      >
        {!query ? (
          <Empty text={t("explore.empty")}>
            <ul class="examples">
              {EXAMPLES.map((one) => (
                <li key={one}>
                  <a href={link(["explore"], { q: one })}>
                    <code>{one}</code>
                  </a>
                </li>
              ))}
            </ul>
          </Empty>
        ) : (
          <Answer asked={asked} height={340}>
            {(data) =>
              isTable ? (
                <Table rows={data.rows} unit={data.unit} />
              ) : data.series.length === 0 ? (
                <Nothing query={query} />
              ) : (
                <>
                  <Chart label={query} times={data.times} lines={lines(data.series)} unit={data.unit} height={320} onZoom={zoomTo} onZoomOut={zoomOut} />
                  {data.series.length > LINES_MAX && <p class="quiet more">{t("explore.cut", { n: LINES_MAX, all: count(data.series.length) })}</p>}
                </>
              )
            }
          </Answer>
        )}
      </Card>
    </>
  );
}

function Nothing({ query }: { query: string }) {
  const name = /[a-zA-Z_:][\w:.]*/.exec(query)?.[0];
  return (
    <Empty text={t("explore.none")}>
      <a href={link(["missing"], { meter: name })}>{t("nav.missing")}</a>
    </Empty>
  );
}

/** The largest, by their last value, first. */
function lines(series: Series[]): Line[] {
  const size = (one: Series) => one.values.findLast((value) => value != null) ?? -Infinity;
  const shown = series.length > LINES_MAX ? [...series].sort((a, b) => size(b) - size(a)).slice(0, LINES_MAX) : series;
  const names = namesOf(shown);
  const times = new Map<string, number>();
  return shown.map((one, index) => {
    const [name, seen] = [names[index]!, (times.get(names[index]!) ?? 0) + 1];
    times.set(name, seen);
    return { name: seen > 1 ? `${name} (${seen})` : name, values: one.values };
  });
}

function Table({ rows, unit }: { rows: Row[]; unit: string }) {
  if (rows.length === 0) return <Empty text={t("explore.none")} />;
  const sorted = [...rows].sort((a, b) => b.value - a.value);
  return (
    <>
      <table class="answers">
        <thead>
          <tr>
            <th>{t("explore.labels")}</th>
            <th class="number">{t("explore.value")}</th>
          </tr>
        </thead>
        <tbody>
          {sorted.slice(0, ROWS_MAX).map((row, index) => (
            <tr key={index}>
              <td>
                <code>
                  <b>{row.labels.__name__}</b>
                  {Object.entries(row.labels)
                    .filter(([name]) => name !== "__name__")
                    .map(([name, value]) => (
                      <span key={name} class="label">
                        {name}=<i>{value}</i>
                      </span>
                    ))}
                </code>
              </td>
              <td class="number" title={String(row.value)}>
                {measured(row.value, unit)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > ROWS_MAX && <p class="quiet more">{t("table.more", { n: count(rows.length - ROWS_MAX) })}</p>}
    </>
  );
}

/** Where in the query an error is, if its text says so. */
export function placeOf(text: string, query: string): [number, number] | undefined {
  const at = /\b(\d+):(\d+):? /.exec(text);
  if (!at) return undefined;
  const before = query.split("\n").slice(0, Number(at[1]) - 1);
  const offset = before.reduce((sum, line) => sum + line.length + 1, 0) + Number(at[2]) - 1;
  return offset <= query.length ? [offset, Math.min(offset + 1, query.length)] : undefined;
}
