// Questions to the server, with the token of who is logged in; what is refused becomes an error that can be shown.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { about, ended, session } from "./session";

/** An answer that is not the one asked for. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(detail || `${status}`);
  }
}

interface Question {
  method?: string;
  params?: Record<string, string | string[] | undefined>;
  /** Sent as JSON. */
  body?: unknown;
  /** Sent as a form. */
  form?: Record<string, string>;
  signal?: AbortSignal;
}

/** Asks a face by its path, relative to the page. */
export async function ask<T>(path: string, question: Question = {}): Promise<T> {
  const token = session()?.token ?? "";
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(question.params ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined) query.append(name, one);
  }
  const headers: Record<string, string> = { "X-Auth-Token": token, Accept: "application/json" };
  let body: BodyInit | undefined;
  if (question.body !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(question.body);
  } else if (question.form) {
    body = new URLSearchParams(question.form);
  }
  const text = query.toString();
  let response: Response;
  try {
    response = await fetch(text ? `${path}?${text}` : path, {
      method: question.method ?? (body === undefined ? "GET" : "POST"),
      headers,
      body: body ?? null,
      signal: question.signal ?? null,
      cache: "no-store",
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refusal(0, "");
  }
  if (response.status === 401) ended(token);
  if (!response.ok) throw new Refusal(response.status, reasonOf(await response.text()));
  return (response.status === 204 ? undefined : await response.json()) as T;
}

/** The words in an error of any of the faces. */
export function reasonOf(text: string): string {
  try {
    const body = JSON.parse(text) as Record<string, unknown>;
    const fault = (body.error_message as { faultstring?: string } | undefined)?.faultstring;
    const description = body.description as string | { cause?: string; reason?: unknown } | undefined;
    const told = typeof description === "object" && description ? `${description.cause}: ${description.reason}` : description;
    const nested = body.error as string | { message?: string } | undefined;
    return fault ?? told ?? (typeof nested === "object" ? nested?.message : nested) ?? "";
  } catch {
    return text.length < 300 && !text.startsWith("<") ? text : "";
  }
}

/** The metric API, wherever it is mounted. */
export async function metricApi<T>(path: string, question: Question = {}): Promise<T> {
  return ask<T>(`${(await about()).metric}/v1/${path}`, question);
}

export interface Asked<T> {
  data: T | undefined;
  error: Refusal | undefined;
  loading: boolean;
  again: () => void;
}

/** How often views that follow the present ask again. */
export const REFRESH_MS = 60_000;

/** Asks when `key` changes, and again from time to time; what was there stays until the new answer has come. */
export function useAsked<T>(key: string | undefined, question: (signal: AbortSignal) => Promise<T>, every?: number): Asked<T> {
  const [state, setState] = useState<{ key?: string; data?: T; error?: Refusal; loading: boolean }>({ loading: key !== undefined });
  const [round, setRound] = useState(0);
  const latest = useRef(question);
  latest.current = question;
  const again = useCallback(() => setRound((count) => count + 1), []);
  useEffect(() => {
    if (key === undefined) return;
    const stop = new AbortController();
    setState((before) => ({ ...before, loading: true }));
    latest.current(stop.signal).then(
      (data) => !stop.signal.aborted && setState({ key, data, loading: false }),
      (error: unknown) => {
        if (stop.signal.aborted) return;
        const refusal = error instanceof Refusal ? error : new Refusal(-1, String(error));
        setState((before) => ({ ...(before.key === key ? before : {}), key, error: refusal, loading: false }));
      },
    );
    return () => stop.abort();
  }, [key, round]);
  useEffect(() => {
    if (!every) return;
    const timer = setInterval(() => document.visibilityState === "visible" && again(), every);
    return () => clearInterval(timer);
  }, [every, again]);
  return { data: state.data, error: state.error, loading: state.loading, again };
}
