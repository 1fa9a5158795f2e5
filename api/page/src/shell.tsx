// What stands around every view: where one can go, which project is looked at, language, light and dark.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type Route } from "./route";
import { changeProject, isOperator, logOut, type Session } from "./session";
import { language, setLanguage, t, type Key } from "./text";
import { setTheme, useTheme } from "./theme";

/** Paths of 20 × 20 pictures, drawn as lines. */
const ICONS: Record<string, string> = {
  "": "M3 3h6v8H3zM11 3h6v4h-6zM11 9h6v8h-6zM3 13h6v4H3z",
  guests: "M3 4h14v8H3zM7 16h6M10 12v4",
  explore: "M3 15l4-6 4 3 6-8M3 3v14h14",
  alarms: "M5 13V9a5 5 0 0 1 10 0v4l1.5 2h-13zM8.5 17a1.6 1.6 0 0 0 3 0",
  events: "M4 5h12M4 10h12M4 15h8",
  costs: "M10 2v16M14 6.5c0-1.7-1.8-2.5-4-2.5s-4 .9-4 2.8c0 4 8 2.2 8 6.2 0 2-1.8 3-4 3s-4-1-4-2.7",
  cardinality: "M4 17V9M8 17V4M12 17v-6M16 17V7",
  health: "M2 10h4l2-5 4 10 2-5h4",
  missing: "M7.5 7.5a2.5 2.5 0 1 1 3.5 2.3c-.7.4-1 .8-1 1.7M10 14.5v.1M10 18a8 8 0 1 1 0-16 8 8 0 0 1 0 16z",
};

const VIEWS: { path: string; name: Key; operators?: boolean }[] = [
  { path: "", name: "nav.overview" },
  { path: "guests", name: "nav.guests" },
  { path: "explore", name: "nav.explore" },
  { path: "alarms", name: "nav.alarms" },
  { path: "events", name: "nav.events" },
  { path: "costs", name: "nav.costs" },
  { path: "cardinality", name: "nav.cardinality" },
  { path: "health", name: "nav.health", operators: true },
  { path: "missing", name: "nav.missing" },
];

function Icon({ path }: { path: string }) {
  return (
    <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" stroke-linecap="round">
      <path d={ICONS[path] ?? ""} />
    </svg>
  );
}

export function Logo() {
  return (
    <span class="logo">
      <svg viewBox="0 0 24 24" width="24" height="24" aria-hidden="true">
        <ellipse cx="9" cy="12.5" rx="3.6" ry="8" transform="rotate(28 9 12.5)" fill="currentColor" />
        <ellipse cx="17" cy="9.5" rx="2.4" ry="5.6" transform="rotate(28 17 9.5)" fill="currentColor" opacity="0.55" />
      </svg>
      Orzo
    </span>
  );
}

/** Language, and light or dark. */
export function Switches() {
  const theme = useTheme();
  return (
    <div class="switches">
      <select aria-label={t("switch.language")} value={language()} onChange={(event) => setLanguage(event.currentTarget.value)}>
        <option value="en">English</option>
        <option value="zh">中文</option>
      </select>
      <select
        aria-label={t("switch.theme")}
        value={theme}
        onChange={(event) => setTheme(event.currentTarget.value as "auto" | "light" | "dark")}
      >
        <option value="auto">{t("theme.auto")}</option>
        <option value="light">{t("theme.light")}</option>
        <option value="dark">{t("theme.dark")}</option>
      </select>
    </div>
  );
}

export function Shell({ route, session, children }: { route: Route; session: Session; children: ComponentChildren }) {
  const [open, setOpen] = useState(false);
  const [unchanged, setUnchanged] = useState(false);
  const here = route.path[0] ?? "";
  useEffect(() => setOpen(false), [route]);
  const views = VIEWS.filter((view) => !view.operators || isOperator(session));
  return (
    <div class={`shell ${open ? "open" : ""}`}>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.querySelector<HTMLElement>("#main h1")?.focus())}>
        {t("nav.skip")}
      </a>
      <header class="top">
        <a href="#/" class="home" aria-label={t("nav.overview")}>
          <Logo />
        </a>
        <button type="button" class="menu" aria-expanded={open} aria-controls="views" onClick={() => setOpen(!open)}>
          <span class="unseen">{t("nav.menu")}</span>
          <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true" stroke="currentColor" stroke-width="1.6" stroke-linecap="round">
            <path d={open ? "M4 4l12 12M16 4L4 16" : "M3 5h14M3 10h14M3 15h14"} />
          </svg>
        </button>
      </header>
      <div class="side" id="views">
        <nav aria-label={t("nav.label")}>
          {views.map((view) => (
            <a key={view.path} href={`#/${view.path}`} aria-current={here === view.path ? "page" : undefined}>
              <Icon path={view.path} />
              {t(view.name)}
            </a>
          ))}
        </nav>
        <div class="who">
          <label>
            {t("who.project")}
            <select
              value={session.project.id}
              disabled={session.projects.length < 2}
              onChange={(event) => {
                const project = session.projects.find((one) => one.id === event.currentTarget.value);
                const own = event.currentTarget;
                setUnchanged(false);
                if (!project) return;
                changeProject(project).catch(() => {
                  own.value = session.project.id;
                  setUnchanged(true);
                });
              }}
            >
              {session.projects.map((project) => (
                <option key={project.id} value={project.id}>
                  {project.name}
                </option>
              ))}
            </select>
          </label>
          {unchanged && (
            <p class="problem" role="alert">
              {t("error.unreachable")}
            </p>
          )}
          <Switches />
          <div class="user">
            <span title={session.roles.join(", ")}>{session.user}</span>
            <button type="button" class="plain" onClick={() => void logOut()}>
              {t("who.out")}
            </button>
          </div>
        </div>
      </div>
      {children}
    </div>
  );
}
