// Light or dark: as the system says, unless the reader has chosen. Canvases cannot ask CSS, so colours of plots are here.
import { useEffect, useState } from "preact/hooks";

export type Theme = "auto" | "light" | "dark";

const KEY = "orzo.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

function isTheme(text: string | null): text is Theme {
  return text === "light" || text === "dark" || text === "auto";
}

export function theme(): Theme {
  const kept = localStorage.getItem(KEY);
  return isTheme(kept) ? kept : "auto";
}

export function isDark(): boolean {
  const chosen = theme();
  return chosen === "auto" ? system.matches : chosen === "dark";
}

export function setTheme(chosen: Theme): void {
  localStorage.setItem(KEY, chosen);
  apply();
}

export function apply(): void {
  document.documentElement.dataset.theme = theme();
  for (const listener of listeners) listener();
}

system.addEventListener("change", apply);

export function useTheme(): Theme {
  const [, again] = useState(0);
  useEffect(() => {
    const listener = () => again((count) => count + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return theme();
}

export interface Ink {
  text: string;
  grid: string;
  focus: string;
  good: string;
  bad: string;
  /** Told apart by eyes that see no red or no green (after Okabe and Ito), darker or lighter with the ground. */
  series: string[];
}

const LIGHT: Ink = {
  text: "#5b6470",
  grid: "#e6e9ee",
  focus: "#2563c9",
  good: "#0a7d5a",
  bad: "#b8400e",
  series: ["#0067b1", "#c45500", "#008a65", "#a8528a", "#8a6d00", "#3d91c9", "#6a4fb0", "#4b5563"],
};

const DARK: Ink = {
  text: "#98a2b0",
  grid: "#272e38",
  focus: "#6ea8ff",
  good: "#3fcf9c",
  bad: "#ff8f5c",
  series: ["#56b4e9", "#f29a4a", "#2fc797", "#e29cc9", "#e6cf4d", "#9fb8ff", "#b79cf5", "#aab4c2"],
};

export function ink(): Ink {
  return isDark() ? DARK : LIGHT;
}
