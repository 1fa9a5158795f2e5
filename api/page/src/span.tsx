// The span of time that a view looks at: so much before now, or from one time to another; part of the address.
import { useMemo } from "preact/hooks";
import { moment, utc } from "./format";
import { setParams } from "./route";
import { t } from "./text";

export interface Span {
  from: number;
  to: number;
  /** Ends now, and moves on. */
  isLive: boolean;
  /** Changes when the span does, or the minute. */
  key: string;
}

const SPANS: Record<string, number> = { "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800, "30d": 2592000 };
/** A zoom into less than this shows single points. */
const LEAST_S = 120;

export function spanOf(params: URLSearchParams, usual = "24h", offered = Object.keys(SPANS), now = Date.now() / 1000): Span {
  const [from, to] = [Number(params.get("from")), Number(params.get("to"))];
  if (from > 0 && to > from) return { from, to, isLive: false, key: `${from}-${to}` };
  const asked = params.get("range") ?? usual;
  const name = offered.includes(asked) ? asked : usual;
  const minute = Math.floor(now / 60) * 60;
  return { from: minute - (SPANS[name] ?? SPANS[usual]!), to: minute, isLive: true, key: `${name}@${minute}` };
}

export function useSpan(params: URLSearchParams, usual = "24h", offered?: string[]): Span {
  return useMemo(() => spanOf(params, usual, offered), [params, usual, offered]);
}

export function zoomTo(from: number, to: number): void {
  const now = Date.now() / 1000;
  const width = Math.max(to - from, LEAST_S);
  // Nothing is known of the future.
  const end = Math.min(Math.max(to, from + LEAST_S), now);
  setParams({ range: undefined, from: String(Math.round(end - width)), to: String(Math.round(end)) });
}

export function zoomOut(): void {
  setParams({ from: undefined, to: undefined });
}

export function SpanPicker(properties: { span: Span; usual?: string; params: URLSearchParams; offered?: string[] }) {
  const { span, usual = "24h", params, offered = Object.keys(SPANS) } = properties;
  const asked = params.get("range") ?? usual;
  const chosen = span.isLive ? (offered.includes(asked) ? asked : usual) : "";
  return (
    <div class="spans" role="group" aria-label={t("span.label")}>
      {offered.map((name) => (
        <button
          type="button"
          key={name}
          aria-pressed={chosen === name}
          onClick={() => setParams({ range: name, from: undefined, to: undefined })}
        >
          {name}
        </button>
      ))}
      {!span.isLive && (
        <button type="button" class="zoomed" aria-pressed={true} title={`${utc(span.from)} – ${utc(span.to)}`} onClick={zoomOut}>
          {moment(span.from)} – {moment(span.to)} <span aria-hidden="true">×</span>
          <span class="unseen">{t("span.reset")}</span>
        </button>
      )}
    </div>
  );
}
