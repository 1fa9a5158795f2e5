// Questions in PromQL, and their answers as columns on one grid of times.
import { ask } from "./ask";

/** A span of time, in seconds since 1970, and the step between two points of a plot. */
export interface Window {
  from: number;
  to: number;
  step: number;
}

export interface Series {
  labels: Record<string, string>;
  /** One for each time of the grid. */
  values: (number | null)[];
}

interface Matrix {
  data: { result: { metric: Record<string, string>; values: [number, string][] }[] };
}

interface Instant {
  data: { resultType: string; result: unknown };
}

export interface Row {
  labels: Record<string, string>;
  value: number;
}

/** Steps that divide an hour or a day. */
const STEPS = [15, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** A step that gives about so many points. */
export function stepFor(seconds: number, points: number, least = 60): number {
  const wanted = Math.max(seconds / points, least);
  return STEPS.find((step) => step >= wanted) ?? 86400 * Math.ceil(wanted / 86400);
}

/** A window whose times are multiples of its step, so that a plot does not shiver when it is asked again. */
export function windowOf(from: number, to: number, points: number, least = 60): Window {
  const step = stepFor(to - from, points, least);
  return { from: Math.ceil(from / step) * step, to: Math.max(Math.floor(to / step), Math.ceil(from / step)) * step, step };
}

export function timesOf(window: Window): number[] {
  const count = Math.floor((window.to - window.from) / window.step) + 1;
  return Array.from({ length: count }, (_, index) => window.from + index * window.step);
}

/** Longer than what is usual between two polls (five minutes), so that a value lasts until the next one. */
const LOOKBACK_S = 660;

/** What a selector has at each time: the value itself where points are as dense as the plot, else their mean. */
export function smooth(selector: string, window: Window): string {
  return window.step > LOOKBACK_S ? `avg_over_time(${selector}[${window.step}s])` : selector;
}

export async function range(query: string, window: Window, signal?: AbortSignal): Promise<Series[]> {
  const form = {
    query,
    start: String(window.from),
    end: String(window.to),
    step: String(window.step),
    lookback_delta: `${LOOKBACK_S}s`,
  };
  const answer = await ask<Matrix>("prometheus/api/v1/query_range", { form, ...(signal ? { signal } : {}) });
  const count = Math.floor((window.to - window.from) / window.step) + 1;
  return answer.data.result.map(({ metric, values }) => {
    const column = new Array<number | null>(count).fill(null);
    for (const [time, text] of values) {
      const value = numberOf(text);
      column[Math.round((time - window.from) / window.step)] = Number.isFinite(value) ? value : null;
    }
    return { labels: metric, values: column };
  });
}

export async function instant(query: string, signal?: AbortSignal, at?: number): Promise<Row[]> {
  const form = { query, lookback_delta: `${LOOKBACK_S}s`, ...(at ? { time: String(at) } : {}) };
  const { data } = await ask<Instant>("prometheus/api/v1/query", { form, ...(signal ? { signal } : {}) });
  if (data.resultType === "vector") {
    return (data.result as { metric: Record<string, string>; value: [number, string] }[]).map(({ metric, value }) => ({
      labels: metric,
      value: numberOf(value[1]),
    }));
  }
  if (data.resultType === "scalar") return [{ labels: {}, value: numberOf((data.result as [number, string])[1]) }];
  return [];
}

function numberOf(text: string): number {
  return text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);
}

/** A text as PromQL writes it. */
export function quoted(text: string): string {
  return JSON.stringify(text);
}

/** The value of now, in a column that ends now; nothing if it has ended before. */
export function latest(values: (number | null)[]): number | null {
  // The newest point of all may be a moment away still.
  return values.at(-1) ?? values.at(-2) ?? null;
}

/** Adds columns; nothing where all have nothing. */
export function sum(columns: (number | null)[][]): (number | null)[] {
  const [first, ...others] = columns;
  const total = [...(first ?? [])];
  for (const column of others) {
    column.forEach((value, index) => {
      if (value != null) total[index] = (total[index] ?? 0) + value;
    });
  }
  return total;
}

export type Units = Record<string, string>;

let unitsAsked: Promise<Units> | undefined;

/** The unit of each metric, asked once. */
export function units(): Promise<Units> {
  unitsAsked ??= ask<{ data: Record<string, { unit: string }[]> }>("prometheus/api/v1/metadata").then(({ data }) =>
    Object.fromEntries(Object.entries(data).map(([name, [about]]) => [name, about?.unit ?? ""])),
  );
  unitsAsked.catch(() => (unitsAsked = undefined));
  return unitsAsked;
}
