// A plot over time: drawn by uPlot, zoomed by dragging or by keys, read out by moving over it or by arrow keys.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clockTime, day, isBinary, measured, moment, utc } from "./format";
import { t, useLanguage } from "./text";
import { ink, useTheme } from "./theme";

export interface Line {
  name: string;
  values: (number | null)[];
  /** An index into the colours of series; in order if it is not said. */
  color?: number;
  fill?: boolean;
  dash?: boolean;
}

export interface Mark {
  at: number;
  name: string;
}

export interface Band {
  from: number;
  to: number;
  kind: "good" | "bad";
}

interface Properties {
  label: string;
  times: number[];
  lines: Line[];
  unit: string;
  height?: number;
  marks?: Mark[];
  bands?: Band[];
  /** A level that is drawn across. */
  level?: number;
  onZoom?: (from: number, to: number) => void;
  onZoomOut?: () => void;
}

/** More lines than this in a legend hide the plot. */
const LEGEND_MAX = 40;
/** A drag of fewer pixels is a click. */
const DRAG_MIN_PX = 6;

export function Chart(properties: Properties) {
  const { label, times, lines, unit, height = 200, marks = [], bands = [], level } = properties;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(properties);
  latest.current = properties;
  const theme = useTheme();
  const language = useLanguage();
  const [at, setAt] = useState<number | null>(null);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const colors = ink().series;
  const colorOf = (line: Line, index: number) => colors[(line.color ?? index) % colors.length]!;
  // What makes another plot; only its values changing does not.
  const shape = JSON.stringify([lines.map((line) => [line.name, line.color, line.dash, line.fill]), unit, theme, language, height]);

  useEffect(() => {
    const host = place.current;
    if (!host) return;
    const colours = ink();
    const axis = {
      stroke: colours.text,
      grid: { stroke: colours.grid, width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    const options: uPlot.Options = {
      width: Math.max(host.clientWidth, 100),
      height,
      padding: [10, 6, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false, dist: DRAG_MIN_PX },
        points: { size: 6 },
        bind: {
          dblclick: () => () => {
            latest.current.onZoomOut?.();
            return null;
          },
        },
      },
      select: { show: true, left: 0, top: 0, width: 0, height: 0 },
      scales: { x: { time: true }, y: { range: (_plot, low, high) => span(low, high, unit, latest.current.level) } },
      axes: [
        { ...axis, size: 30, gap: 8, space: 72, values: (_plot, splits, _axis, _space, step) => splits.map((one, index) => tick(one, index, splits, step)) },
        {
          ...axis,
          size: 74,
          gap: 6,
          ...(isBinary(unit) ? { incrs: BINARY_STEPS } : {}),
          values: (_plot, splits) => splits.map((one) => measured(one, unit)),
        },
      ],
      series: [
        {},
        ...lines.map((line, index) => ({
          label: line.name,
          stroke: colorOf(line, index),
          width: 1.5,
          points: { size: 4 },
          ...(line.fill ? { fill: `${colorOf(line, index)}22` } : {}),
          ...(line.dash ? { dash: [5, 4] } : {}),
        })),
      ],
      hooks: {
        setCursor: [(self) => setAt(self.cursor.idx ?? null)],
        setSelect: [
          (self) => {
            if (self.select.width < DRAG_MIN_PX) return;
            const [from, to] = [self.posToVal(self.select.left, "x"), self.posToVal(self.select.left + self.select.width, "x")];
            self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            latest.current.onZoom?.(from, to);
          },
        ],
        drawClear: [(self) => shade(self, latest.current.bands ?? [], colours)],
        draw: [(self) => draw(self, latest.current.marks ?? [], latest.current.level, colours)],
      },
    };
    const made = new uPlot(options, columns(latest.current), host);
    plot.current = made;
    const watcher = new ResizeObserver(() => made.setSize({ width: Math.max(host.clientWidth, 100), height }));
    watcher.observe(host);
    return () => {
      watcher.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [shape]);

  useEffect(() => plot.current?.setData(columns(latest.current)), [times, lines, level, marks.length, bands.length, shape]);
  useEffect(() => {
    lines.forEach((line, index) => plot.current?.setSeries(index + 1, { show: !hidden.has(line.name) }));
  }, [hidden, shape]);

  const keys = (event: KeyboardEvent) => {
    const self = plot.current;
    if (!self || times.length < 2) return;
    const [from, to] = [times[0]!, times[times.length - 1]!];
    const here = at ?? Math.floor(times.length / 2);
    const move = (index: number) => {
      const idx = Math.min(Math.max(index, 0), times.length - 1);
      self.setCursor({ left: self.valToPos(times[idx]!, "x"), top: 10 });
      setAt(idx);
    };
    const zoom = (factor: number) => {
      const [middle, half] = [times[here]!, ((to - from) * factor) / 2];
      properties.onZoom?.(middle - half, middle + half);
    };
    const pan = (share: number) => properties.onZoom?.(from + (to - from) * share, to + (to - from) * share);
    const actions: Record<string, () => void> = {
      ArrowLeft: () => (event.shiftKey ? pan(-0.5) : move(here - 1)),
      ArrowRight: () => (event.shiftKey ? pan(0.5) : move(here + 1)),
      Home: () => move(0),
      End: () => move(times.length - 1),
      "+": () => zoom(0.5),
      "=": () => zoom(0.5),
      "-": () => zoom(2),
      Escape: () => properties.onZoomOut?.(),
    };
    const action = actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  };

  const toggle = (name: string) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    setHidden(next);
  };
  const shown = at !== null && at < times.length ? at : null;
  const spoken = useMemo(() => {
    if (shown === null) return "";
    return `${moment(times[shown]!)}: ${lines.map((line) => `${line.name} ${measured(line.values[shown], unit)}`).join(", ")}`;
  }, [shown, times, lines, unit]);

  return (
    <figure class="chart">
      <div
        class="plot"
        ref={place}
        tabIndex={0}
        role="application"
        aria-label={`${label}. ${t("chart.keys")}`}
        title={shown === null ? undefined : utc(times[shown]!)}
        onKeyDown={keys}
        style={{ height: `${height}px` }}
      />
      <figcaption>
        <span class="at" aria-hidden="true">
          {shown === null ? "" : moment(times[shown]!)}
        </span>
        <div class="legends">
          {lines.slice(0, LEGEND_MAX).map((line, index) => (
            <button
              type="button"
              class="legend"
              key={line.name}
              aria-pressed={!hidden.has(line.name)}
              title={line.name}
              onClick={() => toggle(line.name)}
            >
              <i class={line.dash ? "dash" : ""} style={{ color: colorOf(line, index) }} />
              <span class="name">{line.name}</span>
              <b>{measured(shown === null ? lastOf(line.values) : line.values[shown], unit)}</b>
            </button>
          ))}
          {lines.length > LEGEND_MAX && <span class="quiet">{t("chart.more", { n: lines.length - LEGEND_MAX })}</span>}
        </div>
        <span class="unseen" aria-live="polite">
          {spoken}
        </span>
      </figcaption>
    </figure>
  );
}

const BINARY_STEPS = Array.from({ length: 60 }, (_, power) => 2 ** power);

function columns({ times, lines }: Properties): uPlot.AlignedData {
  return [times, ...lines.map((line) => line.values)];
}

function lastOf(values: (number | null)[]): number | null {
  return values.findLast((value) => value != null) ?? null;
}

/** From zero, with air above; shares up to their whole where they come near. */
function span(low: number | null, high: number | null, unit: string, level?: number): [number, number] {
  let [bottom, top] = [Math.min(low ?? 0, level ?? 0, 0), Math.max(high ?? 0, level ?? -Infinity)];
  if (!Number.isFinite(top) || top <= bottom) top = bottom + 1;
  top += (top - bottom) * 0.08;
  if (unit === "%" && bottom === 0 && top > 60 && top <= 108) top = 100;
  if (bottom < 0) bottom -= (top - bottom) * 0.05;
  return [bottom, top];
}

function tick(at: number, index: number, splits: number[], step: number): string {
  const isMidnight = new Date(at * 1000).getHours() === 0 && new Date(at * 1000).getMinutes() === 0;
  if (step >= 86400 || isMidnight) return day(at);
  // The first says which day it is, if no other does.
  const crosses = splits.some((one) => new Date(one * 1000).getHours() === 0 && new Date(one * 1000).getMinutes() === 0);
  return index === 0 && !crosses && step >= 3600 ? `${day(at)} ${clockTime(at)}` : clockTime(at);
}

function shade(self: uPlot, bands: Band[], colours: ReturnType<typeof ink>): void {
  for (const band of bands) {
    const left = Math.max(self.valToPos(band.from, "x", true), self.bbox.left);
    const right = Math.min(self.valToPos(band.to, "x", true), self.bbox.left + self.bbox.width);
    if (right <= left) continue;
    self.ctx.fillStyle = `${band.kind === "bad" ? colours.bad : colours.good}26`;
    self.ctx.fillRect(left, self.bbox.top, right - left, self.bbox.height);
  }
}

function draw(self: uPlot, marks: Mark[], level: number | undefined, colours: ReturnType<typeof ink>): void {
  const { ctx, bbox } = self;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  if (level !== undefined) {
    const y = self.valToPos(level, "y", true);
    ctx.strokeStyle = colours.bad;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.strokeStyle = colours.text;
  ctx.fillStyle = colours.text;
  for (const mark of marks) {
    const x = self.valToPos(mark.at, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const size = 4 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x - size, bbox.top);
    ctx.lineTo(x + size, bbox.top);
    ctx.lineTo(x, bbox.top + size * 1.5);
    ctx.fill();
  }
  ctx.restore();
}

/** A small plot beside a number: no axes, for its shape only. */
export function Spark({ values, label, color = 0, top }: { values: (number | null)[]; label: string; color?: number; top?: number }) {
  useTheme();
  const [width, height] = [120, 28];
  const most = Math.max(top ?? 0, ...values.map((value) => value ?? 0)) || 1;
  let path = "";
  let ground = "";
  let open = false;
  let last = 0;
  const close = () => {
    if (open) ground += `L${last.toFixed(1)} ${height}Z`;
    open = false;
  };
  values.forEach((value, index) => {
    if (value == null) return close();
    const x = (index / Math.max(values.length - 1, 1)) * width;
    const y = height - 2 - (value / most) * (height - 4);
    path += `${open ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${open ? "" : "h.01"}`;
    ground += `${open ? "" : `M${x.toFixed(1)} ${height}`}L${x.toFixed(1)} ${y.toFixed(1)}`;
    open = true;
    last = x;
  });
  close();
  const colors = ink().series;
  return (
    <svg class="spark" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <path d={ground} fill={colors[color % colors.length]!} opacity="0.12" />
      <path d={path} fill="none" stroke={colors[color % colors.length]!} stroke-width="1.5" stroke-linejoin="round" stroke-linecap="round" vector-effect="non-scaling-stroke" />
    </svg>
  );
}
