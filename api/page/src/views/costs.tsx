// What a month costs: by day, by service, project and resource, and where it will end. A project sees its own.
import { useMemo } from "preact/hooks";
import { ask, REFRESH_MS, Refusal, useAsked } from "../ask";
import { Chart, type Line } from "../chart";
import { Answer, Bar, Card, Empty, Head, projectName, projectNames, short } from "../parts";
import { link, setParams } from "../route";
import { isOperator, type Session } from "../session";
import { language, t, type Key } from "../text";

interface Row {
  begin: string;
  end: string;
  rate: number;
  day_of_the_year?: string;
  year?: string;
  type?: string;
  project_id?: string;
  id?: string;
  currency?: string;
}

type Dimension = "type" | "project_id" | "id";

const DIMENSIONS: { name: Dimension; title: Key; operators?: boolean }[] = [
  { name: "type", title: "costs.service" },
  { name: "project_id", title: "table.project", operators: true },
  { name: "id", title: "costs.resource" },
];

const DAY_S = 86_400;
/** Rows that are asked for; the server gives no more. */
const ROWS_ASKED = 100_000;
/** Rows shown of a table. */
const ROWS_SHOWN = 50;
/** Groups of which each has a line; the others are one. */
const LINES_MAX = 8;
/** The days whose mean says how it goes on. */
const RECENT_DAYS = 7;

/** The currencies of a time's costs; they are never added. */
async function currencies(begin: number, end: number, filters: string[], signal: AbortSignal): Promise<string[]> {
  const rows = await summary(begin, end, ["currency"], filters, signal);
  return rows.map((row) => row.currency ?? "");
}

async function summary(begin: number, end: number, groupby: string[], filters: string[], signal: AbortSignal): Promise<Row[]> {
  const time = (seconds: number) => new Date(seconds * 1000).toISOString();
  const params = {
    begin: time(begin),
    end: time(end),
    groupby: groupby.join(",") || undefined,
    filters: filters.join(",") || undefined,
    response_format: "object",
    limit: String(ROWS_ASKED),
  };
  return (await ask<{ results: Row[] }>("rating/v2/summary", { params, signal })).results;
}

export interface Course {
  /** Days of the month, by their beginnings. */
  days: number[];
  /** Cost of each day. */
  perDay: number[];
  /** Cost until the end of each day; nothing after the last day that has any. */
  accrued: (number | null)[];
  /** From the last day on: where it goes. */
  forecast: (number | null)[];
  sum: number;
  /** At the end of the month. */
  expected: number;
}

/** The course of a month and its end, by the mean of the last whole days. */
export function courseOf(begin: number, end: number, now: number, costs: Map<number, number>): Course {
  const days: number[] = [];
  for (let day = begin; day < end; day += DAY_S) days.push(day);
  const perDay = days.map((day) => costs.get(day) ?? 0);
  const sum = perDay.reduce((all, cost) => all + cost, 0);
  const present = Math.min(now, end);
  // The present day is not over: it says nothing about a whole day.
  const whole = days.filter((day) => day + DAY_S <= present).length;
  const first = Math.max(0, whole - RECENT_DAYS);
  const hours = Math.max(present - begin, 3600);
  const daily = whole > 0 ? perDay.slice(first, whole).reduce((all, cost) => all + cost, 0) / (whole - first) : (sum / hours) * DAY_S;
  const isOver = now >= end;
  const today = isOver ? days.length - 1 : Math.max(0, days.findIndex((day) => now < day + DAY_S));
  const before = perDay.slice(0, whole).reduce((all, cost) => all + cost, 0);
  const expected = isOver ? sum : Math.max(sum, before + daily * (days.length - whole));
  let running = 0;
  const accrued = perDay.map((cost, index) => (index > today ? null : (running += cost)));
  const forecast = days.map((_, index) => {
    if (isOver || index < today) return null;
    const left = Math.max(days.length - 1 - today, 1);
    return sum + ((expected - sum) * (index - today)) / left;
  });
  return { days, perDay, accrued, forecast, sum, expected };
}

function money(value: number): string {
  return value.toLocaleString(language(), { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

/** A month as `2026-11`, with its first second and that of the next one. */
export function monthOf(text: string | null): { name: string; begin: number; end: number } {
  const now = new Date();
  const [year, month] = /^\d{4}-(0[1-9]|1[0-2])$/.test(text ?? "") ? text!.split("-").map(Number) : [now.getUTCFullYear(), now.getUTCMonth() + 1];
  const at = (later: number) => Date.UTC(year!, month! - 1 + later, 1) / 1000;
  return { name: `${year}-${String(month).padStart(2, "0")}`, begin: at(0), end: at(1) };
}

export function Costs({ params, session }: { params: URLSearchParams; session: Session }) {
  const month = monthOf(params.get("month"));
  const operator = isOperator(session);
  const wanted = DIMENSIONS.find((one) => one.name === params.get("by") && (operator || !one.operators)) ?? DIMENSIONS[0]!;
  const [service, project] = [params.get("service"), params.get("project")];
  const filters = [...(service ? [`type:${service}`] : []), ...(project ? [`project_id:${project}`] : [])];
  const lines: Dimension = wanted.name === "project_id" ? "project_id" : "type";
  const asked = useAsked(
    `${month.name} ${wanted.name} ${filters.join(" ")} ${params.get("currency") ?? ""}`,
    async (signal) => {
      const codes = await currencies(month.begin, month.end, filters, signal);
      const code = codes.find((one) => one === params.get("currency")) ?? codes[0];
      const own = code ? [...filters, `currency:${code}`] : filters;
      const [perDay, groups, last, names] = await Promise.all([
        summary(month.begin, month.end, ["time-y", "time-d", lines], own, signal),
        summary(month.begin, month.end, wanted.name === "id" ? ["id", "type", "project_id"] : [wanted.name], own, signal),
        summary(monthOf(previous(month.begin)).begin, month.begin, ["currency"], own, signal),
        projectNames(),
      ]);
      return { perDay, groups, last: last[0]?.rate ?? 0, names, codes, code };
    },
    REFRESH_MS,
  );
  // A server that does not rate says so; that is no failure.
  const isOff = asked.error instanceof Refusal && asked.error.status === 503;
  return (
    <>
      <Head title={t("costs.title")} note={t("costs.note")}>
        <div class="filters">
          <label>
            {t("costs.month")}
            <input type="month" value={month.name} onChange={(event) => setParams({ month: event.currentTarget.value })} />
          </label>
          <label>
            {t("costs.by")}
            <select value={wanted.name} onChange={(event) => setParams({ by: event.currentTarget.value })}>
              {DIMENSIONS.filter((one) => operator || !one.operators).map((one) => (
                <option key={one.name} value={one.name}>
                  {t(one.title)}
                </option>
              ))}
            </select>
          </label>
          {(asked.data?.codes.length ?? 0) > 1 && (
            <select aria-label="ISO 4217" value={asked.data!.code} onChange={(event) => setParams({ currency: event.currentTarget.value })}>
              {asked.data!.codes.map((one) => (
                <option key={one} value={one}>
                  {one}
                </option>
              ))}
            </select>
          )}
          <a href={link(["costs", "complete"], { month: month.name, project: project ?? undefined })}>{t("bill.complete")}</a>
          {filters.length > 0 && (
            <button type="button" onClick={() => setParams({ service: undefined, project: undefined })}>
              {t("costs.all")}
            </button>
          )}
        </div>
      </Head>
      {isOff && !asked.data ? (
        <Card>
          <Empty text={t("costs.off")} />
        </Card>
      ) : (
        <Answer asked={asked} height={300}>
          {(data) => (data.groups.length === 0 ? <Nothing /> : <Month {...data} month={month} by={wanted.name} lines={lines} />)}
        </Answer>
      )}
    </>
  );
}

function Nothing() {
  return (
    <Card>
      <Empty text={t("costs.empty")} />
    </Card>
  );
}

function previous(begin: number): string {
  return new Date((begin - DAY_S) * 1000).toISOString().slice(0, 7);
}

interface Data {
  perDay: Row[];
  groups: Row[];
  last: number;
  names: Map<string, string>;
}

function Month({ perDay, groups, last, names, month, by, lines }: Data & { month: ReturnType<typeof monthOf>; by: Dimension; lines: Dimension }) {
  const nameOf = (dimension: Dimension, value: string) => (dimension === "project_id" ? projectName(names, value) : dimension === "id" ? short(value) : value);
  const course = useMemo(() => {
    const costs = new Map<number, number>();
    for (const row of perDay) costs.set(dayOf(row), (costs.get(dayOf(row)) ?? 0) + row.rate);
    return courseOf(month.begin, month.end, Date.now() / 1000, costs);
  }, [perDay, month.name]);
  const shown = useMemo(() => linesOf(perDay, lines, course.days, (value) => nameOf(lines, value)), [perDay, lines, course]);
  const sorted = [...groups].sort((a, b) => b.rate - a.rate);
  const isOpen = course.forecast.some((value) => value !== null);
  return (
    <>
      <div class="tiles">
        <Tile name="costs.accrued" value={money(course.sum)} />
        {isOpen && <Tile name="costs.expected" value={money(course.expected)} />}
        <Tile name="costs.last" value={money(last)} />
      </div>
      <div class="columns">
        <Card title={t("costs.course")}>
          <Chart
            label={t("costs.course")}
            times={course.days}
            unit=""
            lines={[
              { name: t("costs.accrued"), values: course.accrued, color: 0, fill: true },
              ...(isOpen ? [{ name: t("costs.expected"), values: course.forecast, color: 0, dash: true }] : []),
            ]}
          />
        </Card>
        <Card title={t("costs.days")}>
          <Chart label={t("costs.days")} times={course.days} unit="" lines={shown} />
        </Card>
      </div>
      <Card title={t(DIMENSIONS.find((one) => one.name === by)!.title)} note={String(groups.length)}>
        <table>
          <thead>
            <tr>
              <th>{t(DIMENSIONS.find((one) => one.name === by)!.title)}</th>
              {by === "id" && <th>{t("costs.service")}</th>}
              <th class="bars">{t("costs.cost")}</th>
            </tr>
          </thead>
          <tbody>
            {sorted.slice(0, ROWS_SHOWN).map((row) => {
              const value = row[by] ?? "";
              const narrowed = by === "type" ? { service: value, by: "id" } : by === "project_id" ? { project: value, by: "type" } : undefined;
              return (
                <tr key={`${value} ${row.type}`}>
                  <td title={value}>
                    {narrowed ? (
                      <button type="button" class="plain" onClick={() => setParams(narrowed)}>
                        {nameOf(by, value) || t("costs.none")}
                      </button>
                    ) : (
                      <a href={link(["costs", "lines"], { month: month.name, resource: value, service: row.type, project: row.project_id })}>{nameOf(by, value) || t("costs.none")}</a>
                    )}
                  </td>
                  {by === "id" && <td>{row.type}</td>}
                  <td class="bars">
                    <Bar share={course.sum > 0 ? row.rate / course.sum : 0} text={money(row.rate)} />
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
        {sorted.length > ROWS_SHOWN && <p class="quiet more">{t("table.more", { n: sorted.length - ROWS_SHOWN })}</p>}
      </Card>
    </>
  );
}

function Tile({ name, value }: { name: Key; value: string }) {
  return (
    <div class="tile card">
      <span class="name">{t(name)}</span>
      <strong>{value}</strong>
    </div>
  );
}

function dayOf(row: Row): number {
  return Date.UTC(Number(row.year), 0, Number(row.day_of_the_year)) / 1000;
}

/** A line for each of the largest groups, and one for all others. */
function linesOf(rows: Row[], by: Dimension, days: number[], nameOf: (value: string) => string): Line[] {
  const groups = new Map<string, Map<number, number>>();
  for (const row of rows) {
    const group = row[by] ?? "";
    const costs = groups.get(group) ?? new Map<number, number>();
    costs.set(dayOf(row), (costs.get(dayOf(row)) ?? 0) + row.rate);
    groups.set(group, costs);
  }
  const sum = (costs: Map<number, number>) => [...costs.values()].reduce((all, cost) => all + cost, 0);
  const sorted = [...groups].sort((a, b) => sum(b[1]) - sum(a[1]));
  const lines = sorted.slice(0, LINES_MAX).map(([group, costs]) => ({
    name: nameOf(group) || t("costs.none"),
    values: days.map((day) => costs.get(day) ?? null),
  }));
  const others = sorted.slice(LINES_MAX).map(([, costs]) => costs);
  if (others.length > 0) {
    lines.push({ name: t("costs.others"), values: days.map((day) => others.reduce<number | null>((all, costs) => (costs.has(day) ? (all ?? 0) + costs.get(day)! : all), null)) });
  }
  return lines;
}
