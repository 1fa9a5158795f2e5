// Numbers, units and times as people read them.
import { language } from "./text";

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const DECIMAL = ["", "k", "M", "G", "T", "P", "E"];
/** How many bytes a unit is; Ceilometer's KB is the kernel's, of 1024. */
const BYTES: Record<string, number> = { B: 1, KB: 1024, KiB: 1024, MB: 1024 ** 2, MiB: 1024 ** 2, GB: 1024 ** 3, GiB: 1024 ** 3 };
const SECONDS: Record<string, number> = { ns: 1e-9, us: 1e-6, ms: 1e-3, s: 1, sec: 1 };

/** Three digits that count. */
function digits(value: number): string {
  const size = Math.abs(value);
  const places = size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  const rounded = Number(value.toFixed(places));
  if (rounded === 0 && value !== 0) return value.toExponential(1);
  return rounded.toLocaleString(language(), { maximumFractionDigits: places, useGrouping: false });
}

function scaled(value: number, prefixes: string[], base: number): [number, string] {
  let size = 0;
  while (Math.abs(value) >= base && size < prefixes.length - 1) {
    value /= base;
    size += 1;
  }
  return [value, prefixes[size]!];
}

function duration(seconds: number): string {
  const size = Math.abs(seconds);
  if (seconds === 0) return "0 s";
  if (size < 1e-6) return `${digits(seconds * 1e9)} ns`;
  if (size < 1e-3) return `${digits(seconds * 1e6)} µs`;
  if (size < 1) return `${digits(seconds * 1e3)} ms`;
  if (size < 120) return `${digits(seconds)} s`;
  if (size < 7200) return `${digits(seconds / 60)} min`;
  if (size < 172800) return `${digits(seconds / 3600)} h`;
  return `${digits(seconds / 86400)} d`;
}

/** A value with its unit: `1.5 GiB`, `23 %`, `250 ms/s`. */
export function measured(value: number | null | undefined, unit: string): string {
  if (value == null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const [base, per] = unit.endsWith("/s") ? [unit.slice(0, -2), "/s"] : [unit, ""];
  if (base === "%") return `${digits(value)} %${per}`;
  if (base in BYTES) {
    const [number, name] = scaled(value * BYTES[base]!, BINARY, 1024);
    return `${digits(number)} ${name}${per}`;
  }
  if (base in SECONDS) return `${duration(value * SECONDS[base]!)}${per}`;
  const [number, prefix] = scaled(value, DECIMAL, 1000);
  const word = `${prefix}${prefix && base ? " " : ""}${base}${per}`;
  return word ? `${digits(number)} ${word}` : digits(number);
}

export function count(value: number): string {
  return value.toLocaleString(language());
}

/** Marks on an axis of such values: multiples of 1024 where that is what the unit counts in. */
export function isBinary(unit: string): boolean {
  return (unit.endsWith("/s") ? unit.slice(0, -2) : unit) in BYTES;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function format(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = language() + JSON.stringify(options);
  let one = formats.get(key);
  if (!one) formats.set(key, (one = new Intl.DateTimeFormat(language(), { hourCycle: "h23", ...options })));
  return one;
}

/** Date and time where the reader is. */
export function moment(seconds: number, withSeconds = false): string {
  return format({
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    ...(withSeconds ? { second: "2-digit" } : {}),
    ...(new Date(seconds * 1000).getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" }),
  }).format(seconds * 1000);
}

export function clockTime(seconds: number): string {
  return format({ hour: "2-digit", minute: "2-digit" }).format(seconds * 1000);
}

export function day(seconds: number): string {
  return format({ month: "short", day: "numeric" }).format(seconds * 1000);
}

/** The same in UTC, for whoever compares with a log. */
export function utc(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().replace("T", " ").replace(/\.\d+Z/, "")} UTC`;
}

/** `3 min ago` */
export function ago(seconds: number, now = Date.now() / 1000): string {
  const distance = seconds - now;
  const size = Math.abs(distance);
  const relative = new Intl.RelativeTimeFormat(language(), { numeric: "auto", style: "short" });
  if (size < 60) return relative.format(Math.round(distance), "second");
  if (size < 3600) return relative.format(Math.round(distance / 60), "minute");
  if (size < 86400 * 2) return relative.format(Math.round(distance / 3600), "hour");
  return relative.format(Math.round(distance / 86400), "day");
}

/** A time in an API's text; without a zone it is UTC. */
export function secondsOf(text: string): number {
  const zoned = /(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`;
  return Date.parse(zoned) / 1000;
}
