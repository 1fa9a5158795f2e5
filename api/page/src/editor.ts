// The editor of PromQL: completion of names, labels, values and functions, and mistakes marked where they are. Loaded
// only by the view that needs it.
//
// It stands in a shadow root: there its style sheets are objects, not elements, which the page's policy would refuse.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { forceLinting, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { Compartment, EditorState, Prec } from "@codemirror/state";
import { EditorView, keymap, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { PromQLExtension, type PrometheusClient } from "@prometheus-io/codemirror-promql";
import { ask } from "./ask";
import { isDark } from "./theme";

/** Values of one label that are offered; whoever has more types some letters first. */
const OFFERED_MAX = 2000;

type Matchers = NonNullable<Parameters<PrometheusClient["labelValues"]>[2]>;

function selector(name: string | undefined, matchers: Matchers | undefined): string | undefined {
  const parts = (matchers ?? []).filter((one) => one.value !== "").map((one) => `${one.name}=${JSON.stringify(one.value)}`);
  const text = `${name ?? ""}${parts.length > 0 ? `{${parts.join(",")}}` : ""}`;
  return text || undefined;
}

/** What the completion asks, through the same door as everything else. */
class Client implements PrometheusClient {
  private readonly kept = new Map<string, Promise<unknown>>();

  private get<T>(path: string, params: Record<string, string | undefined> = {}): Promise<T> {
    const key = path + JSON.stringify(params);
    let answer = this.kept.get(key) as Promise<T> | undefined;
    if (!answer) {
      answer = ask<{ data: T }>(`prometheus/api/v1/${path}`, { params }).then((body) => body.data);
      this.kept.set(key, answer);
      answer.catch(() => this.kept.delete(key));
    }
    return answer;
  }

  labelNames(metric?: string): Promise<string[]> {
    return this.get<string[]>("labels", { "match[]": selector(metric, undefined) }).catch(() => []);
  }

  labelValues(label: string, metric?: string, matchers?: Matchers): Promise<string[]> {
    const others = matchers?.filter((one) => one.name !== label);
    return this.get<string[]>(`label/${encodeURIComponent(label)}/values`, {
      "match[]": selector(metric, others),
      limit: String(OFFERED_MAX),
    }).catch(() => []);
  }

  metricMetadata() {
    return this.get<Record<string, { type: string; help: string; unit: string }[]>>("metadata")
      .then((all) => {
        for (const rows of Object.values(all)) for (const row of rows) row.help ||= row.unit && `[${row.unit}]`;
        return all;
      })
      .catch(() => ({}));
  }

  series(): Promise<Map<string, string>[]> {
    return Promise.resolve([]);
  }

  metricNames(): Promise<string[]> {
    return this.labelValues("__name__");
  }

  flags(): Promise<Record<string, string>> {
    return Promise.resolve({});
  }
}

const client = new Client();

function look() {
  const dark = isDark();
  const [text, ground, line, chosen] = dark ? ["#e4e8ee", "#181d25", "#29313c", "#1b2f47"] : ["#1a2029", "#ffffff", "#e3e6eb", "#e3eefb"];
  const colors = dark
    ? { name: "#74b4ff", word: "#e29cc9", text: "#2fc797", number: "#f29a4a", quiet: "#98a2b0" }
    : { name: "#0b5cad", word: "#8b3a72", text: "#0a6b4d", number: "#a04300", quiet: "#5b6470" };
  const mono = 'ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace';
  return [
    EditorView.theme(
      {
        "&": { color: text, backgroundColor: ground, fontSize: "14px", borderRadius: "5px" },
        "&.cm-focused": { outline: "none" },
        ".cm-content": { fontFamily: mono, padding: "8px 0", caretColor: text },
        ".cm-line": { padding: "0 10px" },
        ".cm-cursor": { borderLeftColor: text },
        ".cm-tooltip": { backgroundColor: ground, color: text, border: `1px solid ${line}`, borderRadius: "6px", maxWidth: "94vw" },
        ".cm-tooltip-autocomplete > ul": { fontFamily: mono, maxHeight: "14em" },
        ".cm-tooltip-autocomplete > ul > li": { padding: "3px 8px" },
        ".cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected]": { backgroundColor: chosen, color: text },
        ".cm-completionDetail": { color: colors.quiet, fontStyle: "normal" },
        ".cm-completionIcon": { display: "none" },
        ".cm-completionMatchedText": { textDecoration: "none", fontWeight: "700" },
        ".cm-diagnostic": { padding: "6px 10px" },
        ".cm-placeholder": { color: colors.quiet },
      },
      { dark },
    ),
    syntaxHighlighting(
      HighlightStyle.define([
        { tag: tags.keyword, color: colors.word },
        { tag: [tags.function(tags.variableName), tags.operatorKeyword, tags.modifier], color: colors.word },
        { tag: tags.labelName, color: colors.quiet },
        { tag: tags.variableName, color: colors.name },
        { tag: tags.string, color: colors.text },
        { tag: [tags.number, tags.literal], color: colors.number },
        { tag: tags.operator, color: colors.quiet },
        { tag: tags.invalid, textDecoration: "underline wavy" },
      ]),
    ),
  ];
}

/**
 * Types over a selection ourselves. Chromium would keep the look of what it replaces, in a style attribute, which the
 * page's policy refuses (and says so on the console).
 */
const typeOver = EditorView.domEventHandlers({
  beforeinput(event, view) {
    const { from, to, empty } = view.state.selection.main;
    const text = event.data;
    if (event.inputType !== "insertText" || !text || empty || view.composing || view.state.selection.ranges.length > 1) return false;
    const insert = () => view.state.update({ ...view.state.replaceSelection(text), userEvent: "input.type", scrollIntoView: true });
    const isTaken = view.state.facet(EditorView.inputHandler).some((handle) => handle(view, from, to, text, insert));
    if (!isTaken) view.dispatch(insert());
    event.preventDefault();
    return true;
  },
});

export interface Editor {
  text(): string;
  setText(text: string): void;
  /** Marks a place that the server did not understand. */
  mark(from: number, to: number, message: string): void;
  /** Follows light and dark. */
  relook(): void;
  focus(): void;
  destroy(): void;
}

export function makeEditor(host: HTMLElement, text: string, label: string, hint: string, run: () => void): Editor {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const looks = new Compartment();
  const promql = new PromQLExtension().setComplete({ remote: client, maxMetricsMetadata: 10_000 });
  const go = () => {
    run();
    return true;
  };
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        history(),
        bracketMatching(),
        closeBrackets(),
        autocompletion({ activateOnTyping: true, maxRenderedOptions: 60 }),
        typeOver,
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ "aria-label": label, spellcheck: "false", autocapitalize: "off" }),
        placeholder(hint),
        promql.asExtension(),
        looks.of(look()),
        Prec.low(keymap.of([{ key: "Enter", run: go }, { key: "Shift-Enter", run: (target) => (target.dispatch(target.state.replaceSelection("\n")), true) }])),
        Prec.highest(keymap.of([{ key: "Mod-Enter", run: go }])),
        keymap.of([...closeBracketsKeymap, ...completionKeymap, ...historyKeymap, ...lintKeymap]),
        Prec.lowest(keymap.of(defaultKeymap)),
      ],
    }),
  });
  return {
    text: () => view.state.doc.toString(),
    setText: (wanted) => {
      if (wanted !== view.state.doc.toString()) view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: wanted } });
    },
    mark: (from, to, message) => {
      const end = view.state.doc.length;
      forceLinting(view);
      view.dispatch(setDiagnostics(view.state, [{ from: Math.min(from, end), to: Math.min(Math.max(to, from), end), severity: "error", message }]));
    },
    relook: () => view.dispatch({ effects: looks.reconfigure(look()) }),
    focus: () => view.focus(),
    destroy: () => view.destroy(),
  };
}
