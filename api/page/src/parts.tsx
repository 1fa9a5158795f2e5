// What all views are made from: cards, states of waiting and failing, times, names of projects.
import type { ComponentChildren } from "preact";
import { ask, type Asked, type Refusal } from "./ask";
import { ago, moment, secondsOf, utc } from "./format";
import { link } from "./route";
import { about, isOperator, session, type Project } from "./session";
import { t, type Key } from "./text";

export function Card(properties: { title?: string; note?: string; tools?: ComponentChildren; class?: string; children: ComponentChildren }) {
  return (
    <section class={`card ${properties.class ?? ""}`}>
      {(properties.title || properties.tools) && (
        <header>
          {properties.title && <h2>{properties.title}</h2>}
          {properties.note && <span class="quiet">{properties.note}</span>}
          {properties.tools}
        </header>
      )}
      {properties.children}
    </section>
  );
}

/** The head of a view. */
export function Head(properties: { title: string; note?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class="head">
      <div>
        <h1 tabIndex={-1} title={properties.title}>
          {properties.title}
        </h1>
        {properties.note && <p class="quiet">{properties.note}</p>}
      </div>
      {properties.children}
    </div>
  );
}

/** Nothing is there: why that may be, and what to do. */
export function Empty({ text, children }: { text: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p>{text}</p>
      {children}
    </div>
  );
}

/** What is asked again is refused again. */
const REFUSED = new Set([400, 403, 404, 422]);

export function Failure({ error, again }: { error: Refusal; again?: () => void }) {
  const known: Record<number, Key> = { 0: "error.unreachable", 400: "error.refused", 422: "error.refused", 403: "error.forbidden", 404: "error.missing", 429: "error.busy", 503: "error.busy" };
  const advice = known[error.status];
  return (
    <div class="failure" role="alert">
      <p>{advice ? t(advice) : t("error.other", { status: error.status > 0 ? error.status : "" })}</p>
      {error.detail && <p class="detail">{error.detail}</p>}
      {again && !REFUSED.has(error.status) && (
        <button type="button" onClick={again}>
          {t("error.again")}
        </button>
      )}
    </div>
  );
}

export function Waiting({ height = 80 }: { height?: number }) {
  return (
    <div class="waiting" role="status" style={{ minHeight: `${height}px` }}>
      <span class="unseen">{t("loading")}</span>
    </div>
  );
}

/** The answer, or why there is none yet. */
export function Answer<T>({ asked, height, children }: { asked: Asked<T>; height?: number; children: (data: T) => ComponentChildren }) {
  if (asked.data !== undefined) {
    return (
      <>
        {asked.error && <Failure error={asked.error} again={asked.again} />}
        {children(asked.data)}
      </>
    );
  }
  if (asked.error) return <Failure error={asked.error} again={asked.again} />;
  return <Waiting {...(height === undefined ? {} : { height })} />;
}

/** A time where the reader is; UTC when pointed at. */
export function Time({ at, relative = false }: { at: string | number | null | undefined; relative?: boolean }) {
  if (at == null || at === "") return <span class="quiet">–</span>;
  const seconds = typeof at === "number" ? at : secondsOf(at);
  if (!Number.isFinite(seconds)) return <span>{String(at)}</span>;
  const local = moment(seconds, true);
  return (
    <time dateTime={new Date(seconds * 1000).toISOString()} title={relative ? `${local} · ${utc(seconds)}` : utc(seconds)}>
      {relative ? ago(seconds) : local}
    </time>
  );
}

export function Guest({ id, name }: { id: string; name?: string | null | undefined }) {
  return (
    <a href={link(["guests", id])} title={name || id}>
      {name || short(id)}
    </a>
  );
}

/** The beginning of a long id. */
export function short(id: string): string {
  return /^[0-9a-f]{32}$|^[0-9a-f-]{36}$/.test(id) ? `${id.slice(0, 8)}…` : id;
}

let projectsAsked: { token: string; names: Promise<Map<string, string>> } | undefined;

/** Names of projects: all of them for an operator, else those of the user. */
export function projectNames(): Promise<Map<string, string>> {
  const one = session();
  if (!one) return Promise.resolve(new Map());
  if (projectsAsked?.token !== one.token) projectsAsked = { token: one.token, names: named(one.projects, isOperator(one)) };
  return projectsAsked.names;
}

async function named(own: Project[], all: boolean): Promise<Map<string, string>> {
  const names = new Map(own.map((project) => [project.id, project.name]));
  if (!all) return names;
  try {
    const { identity } = await about();
    const { projects } = await ask<{ projects: Project[] }>(`${identity}/projects`);
    for (const project of projects) names.set(project.id, project.name);
  } catch {
    // An identity service may keep the list from us; then ids are shown.
  }
  return names;
}

export function projectName(names: Map<string, string> | undefined, id: string | null | undefined): string {
  if (!id) return t("project.none");
  return names?.get(id) ?? short(id);
}

/** A share as a bar with its number. */
export function Bar({ share, text }: { share: number; text: string }) {
  return (
    <span class="bar">
      <i style={{ width: `${Math.min(Math.max(share, 0), 1) * 100}%` }} />
      <b>{text}</b>
    </span>
  );
}
