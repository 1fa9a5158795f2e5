// What a bill rests on: the lines of a resource, where one of them comes from (rules, stretches, events, points), and what of a project's
// usage was measured. A project sees its own; the server decides that.
import type { ComponentChildren } from "preact";
import { ask, Refusal, useAsked } from "../ask";
import { count } from "../format";
import { Answer, Bar, Card, Empty, Head, projectName, projectNames, short, Time } from "../parts";
import { link, setParams } from "../route";
import { session as present } from "../session";
import { t, type Key } from "../text";
import { monthOf } from "./costs";

interface Line {
  id: string;
  scope: string;
  service: string;
  resource: string;
  begin: string;
  end: string;
  period: string;
  unit: string;
  quantity: string;
  unit_price: string;
  cost: string;
  currency: string;
  kind: string;
  corrects: string | null;
  reverses: boolean;
  rule: string;
  rule_version: number;
  samples: number;
  rated_at: string;
  metadata: Record<string, string>;
}

interface Gaps {
  resource: string;
  metric: string;
  expected: number;
  present: number;
  missing: [string, string][];
}

interface Finding {
  resource: string;
  at: string;
  reason: string;
  detail: string;
}

interface Stretch {
  begin: string;
  end: string;
  project_id: string | null;
  metadata: Record<string, string>;
}

interface Told {
  line: Line;
  related: Line[];
  explanation: {
    is_reproduced: boolean;
    rated_anew: Line | null;
    rules: unknown[];
    stretches: Stretch[];
    events: { message_id: string; event_type: string; generated_at: string; traits: Record<string, string> }[];
    revisions: { from: string; until: string | null; attributes: Record<string, unknown> }[];
    points: { timestamp: string; value: number }[];
    counts: [number, number, number];
    completeness: Gaps | null;
    findings: Finding[];
  };
}

/** Lines of one page; the server gives no more. */
const LINES_ASKED = 500;
/** Rows shown of what a line rests on. */
const ROWS_SHOWN = 60;

/** An exact number without the zeros at its end: no digit that says something is lost. */
export function plain(text: string): string {
  return /^-?\d+\.\d+$/.test(text) ? text.replace(/\.?0+$/, "") : text;
}

function amount(line: Line): string {
  return `${plain(line.cost)} ${line.currency}`;
}

function isOff(error: unknown): boolean {
  return error instanceof Refusal && error.status === 503;
}

/** What a line is: charged, or what it has to do with another one. */
function Kind({ line }: { line: Line }) {
  const key: Key = line.reverses ? "bill.reversal" : line.corrects ? "bill.replacement" : "bill.charge";
  return <span class="tag">{t(key)}</span>;
}

/** The lines of a resource in a month. */
export function Lines({ params }: { params: URLSearchParams }) {
  const month = monthOf(params.get("month"));
  const [resource, service] = [params.get("resource") ?? "", params.get("service") ?? ""];
  const project = params.get("project") ?? present()?.project.id ?? "";
  const asked = useAsked(`${month.name} ${resource} ${service} ${project}`, async (signal) => {
    const query = {
      begin: new Date(month.begin * 1000).toISOString(),
      end: new Date(month.end * 1000).toISOString(),
      project_id: project,
      resource_id: resource || undefined,
      type: service || undefined,
      limit: String(LINES_ASKED),
    };
    return (await ask<{ lines: Line[] }>("rating/v2/lines", { params: query, signal })).lines;
  });
  return (
    <>
      <Head title={t("bill.lines")} note={resource ? short(resource) : t("bill.lines.note")}>
        <Months name={month.name} project={project} />
      </Head>
      <Card>
        <Answer asked={asked} height={200}>
          {(lines) => (lines.length === 0 ? <Empty text={t("costs.empty")} /> : <LineTable lines={lines} isLong={lines.length >= LINES_ASKED} />)}
        </Answer>
        {isOff(asked.error) && <Empty text={t("costs.off")} />}
      </Card>
    </>
  );
}

function Months({ name, project }: { name: string; project: string }) {
  return (
    <div class="filters">
      <label>
        {t("costs.month")}
        <input type="month" value={name} onChange={(event) => setParams({ month: event.currentTarget.value })} />
      </label>
      <a href={link(["costs"], { month: name })}>{t("costs.title")}</a>
      <a href={link(["costs", "complete"], { month: name, project })}>{t("bill.complete")}</a>
    </div>
  );
}

function LineTable({ lines, isLong = false }: { lines: Line[]; isLong?: boolean }) {
  return (
    <>
      <ul class="events">
        {lines.map((line) => (
          <li key={line.id}>
            <a class="billline" href={link(["costs", "line", line.id])} title={line.id}>
              <Time at={line.begin} />
              <b>{line.service}</b>
              <span class="about">
                {plain(line.quantity)} {line.unit} · {short(line.resource)} <Kind line={line} />
              </span>
              <strong>{amount(line)}</strong>
            </a>
          </li>
        ))}
      </ul>
      {isLong && <p class="quiet more">{t("bill.more", { n: LINES_ASKED })}</p>}
    </>
  );
}

/** Where a line comes from, all the way down. */
export function Explained({ id }: { id: string }) {
  const asked = useAsked(id, (signal) => ask<Told>(`rating/v2/lines/${encodeURIComponent(id)}`, { signal }));
  const names = useAsked("names", () => projectNames());
  return (
    <>
      <Head title={t("bill.explained")} note={t("bill.explained.note")} />
      <Answer asked={asked} height={300}>
        {(told) => <Walk {...told} names={names.data} />}
      </Answer>
    </>
  );
}

function Facts({ facts }: { facts: [Key, ComponentChildren][] }) {
  return (
    <dl class="traits">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{t(name)}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function said(facts: Record<string, string>): string {
  return Object.entries(facts).map(([name, value]) => `${name}: ${value}`).join(", ");
}

function Walk({ line, related, explanation, names }: Told & { names: Map<string, string> | undefined }) {
  const verdict: Key = explanation.is_reproduced ? "bill.same" : explanation.rated_anew ? "bill.other" : "bill.nothing";
  const [events, , points] = explanation.counts;
  return (
    <>
      <Card title={`${line.service}: ${amount(line)}`} tools={<Kind line={line} />}>
        <Facts
          facts={[
            ["costs.resource", <span title={line.resource}>{short(line.resource)}</span>],
            ["table.project", projectName(names, line.scope)],
            ["bill.from", <Time at={line.begin} />],
            ["bill.until", <Time at={line.end} />],
            ["bill.quantity", `${plain(line.quantity)} ${line.unit}`],
            ["bill.unitprice", plain(line.unit_price)],
            ["bill.rule", `${line.rule}, ${t("bill.version", { n: line.rule_version })}`],
            ["bill.rated", <Time at={line.rated_at} />],
            ["bill.facts", said(line.metadata) || t("costs.none")],
            ["bill.corrects", line.corrects ? <a href={link(["costs", "line", line.corrects])}>{short(line.corrects)}</a> : t("costs.none")],
          ]}
        />
        <p class={explanation.is_reproduced ? "quiet" : "problem"}>{t(verdict, { cost: explanation.rated_anew ? amount(explanation.rated_anew) : "" })}</p>
      </Card>
      {related.length > 0 && (
        <Card title={t("bill.related")} note={String(related.length)}>
          <LineTable lines={related.slice(0, ROWS_SHOWN)} />
        </Card>
      )}
      <Card title={t("bill.rules")} note={t("bill.version", { n: line.rule_version })}>
        {explanation.rules.length === 0 ? <Empty text={t("bill.norules")} /> : <pre class="rules" tabIndex={0}>{JSON.stringify(explanation.rules, null, 2)}</pre>}
      </Card>
      <Card title={t("bill.stretches")} note={count(explanation.stretches.length)}>
        {explanation.stretches.length === 0 ? (
          <Empty text={t("bill.nousage")} />
        ) : (
          <ul class="events">
            {explanation.stretches.slice(-ROWS_SHOWN).map((own) => (
              <li key={own.begin}>
                <span class="billline">
                  <Time at={own.begin} /> – <Time at={own.end} />
                  <b>{projectName(names, own.project_id)}</b>
                  <span class="about">{said(own.metadata)}</span>
                </span>
              </li>
            ))}
          </ul>
        )}
      </Card>
      <Card title={t("bill.events")} note={count(events)}>
        {events === 0 ? (
          <Empty text={t("bill.noevents")} />
        ) : (
          <ul class="events">
            {explanation.events.slice(0, ROWS_SHOWN).map((own) => (
              <li key={own.message_id}>
                <details>
                  <summary>
                    <Time at={own.generated_at} />
                    <b>{own.event_type}</b>
                  </summary>
                  <dl class="traits">
                    {Object.entries(own.traits).map(([name, value]) => (
                      <div key={name}>
                        <dt>{name}</dt>
                        <dd>{value}</dd>
                      </div>
                    ))}
                  </dl>
                </details>
              </li>
            ))}
          </ul>
        )}
      </Card>
      <Card title={t("bill.points")} note={count(points)}>
        {points === 0 ? (
          <Empty text={t("bill.nopoints")} />
        ) : (
          <table>
            <thead>
              <tr>
                <th>{t("bill.at")}</th>
                <th>{t("bill.value")}</th>
              </tr>
            </thead>
            <tbody>
              {explanation.points.slice(0, ROWS_SHOWN).map((own) => (
                <tr key={own.timestamp}>
                  <td>
                    <Time at={own.timestamp} />
                  </td>
                  <td>{own.value}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Card>
      {explanation.completeness && explanation.completeness.missing.length > 0 && (
        <Card title={t("bill.complete")}>
          <GapList gaps={explanation.completeness} findings={explanation.findings} />
        </Card>
      )}
    </>
  );
}

function GapList({ gaps, findings }: { gaps: Gaps; findings: Finding[] }) {
  const told = findings.filter((own) => own.resource === gaps.resource);
  return (
    <ul class="events">
      {gaps.missing.slice(0, ROWS_SHOWN).map(([from, until]) => (
        <li key={from}>
          <span class="billline">
            <Time at={from} /> – <Time at={until} />
            <span class="about">{told.find((own) => from <= own.at && own.at < until)?.detail ?? t("bill.notpolled")}</span>
          </span>
        </li>
      ))}
      {gaps.missing.length > ROWS_SHOWN && <li class="quiet">{t("table.more", { n: gaps.missing.length - ROWS_SHOWN })}</li>}
    </ul>
  );
}

interface Complete {
  resources: Gaps[];
  disagreements: Finding[];
}

/** What of a project's usage was measured in a month: slots expected, present, missing, with the reason where it is known. */
export function Completeness({ params }: { params: URLSearchParams }) {
  const month = monthOf(params.get("month"));
  const project = params.get("project") ?? present()?.project.id ?? "";
  const asked = useAsked(`${month.name} ${project}`, (signal) => {
    const [begin, end] = [month.begin, month.end].map((at) => new Date(at * 1000).toISOString());
    return ask<Complete>("rating/v2/completeness", { params: { begin, end, project_id: project }, signal });
  });
  const names = useAsked("names", () => projectNames());
  return (
    <>
      <Head title={t("bill.complete")} note={`${projectName(names.data, project)}: ${t("bill.complete.note")}`}>
        <div class="filters">
          <label>
            {t("costs.month")}
            <input type="month" value={month.name} onChange={(event) => setParams({ month: event.currentTarget.value })} />
          </label>
          <a href={link(["costs"], { month: month.name })}>{t("costs.title")}</a>
        </div>
      </Head>
      {isOff(asked.error) && !asked.data ? (
        <Card>
          <Empty text={t("costs.off")} />
        </Card>
      ) : (
        <Answer asked={asked} height={300}>
          {(data) => <Gapped {...data} />}
        </Answer>
      )}
    </>
  );
}

function Gapped({ resources, disagreements }: Complete) {
  const sum = (of: (own: Gaps) => number) => resources.reduce((all, own) => all + of(own), 0);
  const [expected, there] = [sum((own) => own.expected), sum((own) => own.present)];
  const worst = [...resources].sort((a, b) => b.expected - b.present - (a.expected - a.present));
  if (resources.length === 0) {
    return (
      <Card>
        <Empty text={t("bill.nousage")} />
      </Card>
    );
  }
  return (
    <>
      <div class="tiles">
        {([["bill.expected", expected], ["bill.present", there], ["bill.missing", expected - there], ["bill.disagreements", disagreements.length]] as [Key, number][]).map(([name, value]) => (
          <div class="tile card" key={name}>
            <span class="name">{t(name)}</span>
            <strong>{count(value)}</strong>
          </div>
        ))}
      </div>
      <Card title={t("costs.resource")} note={count(resources.length)}>
        <ul class="events">
          {worst.slice(0, ROWS_SHOWN).map((own) => (
            <li key={`${own.resource} ${own.metric}`}>
              <details>
                <summary>
                  <b title={own.resource}>{short(own.resource)}</b>
                  <span class="about">{own.metric}</span>
                  <Bar share={own.expected > 0 ? own.present / own.expected : 1} text={`${count(own.present)} / ${count(own.expected)}`} />
                </summary>
                {own.missing.length === 0 ? <p class="quiet">{t("bill.whole")}</p> : <GapList gaps={own} findings={disagreements} />}
              </details>
            </li>
          ))}
        </ul>
        {worst.length > ROWS_SHOWN && <p class="quiet more">{t("table.more", { n: worst.length - ROWS_SHOWN })}</p>}
      </Card>
      {disagreements.length > 0 && (
        <Card title={t("bill.disagreements")} note={count(disagreements.length)}>
          <ul class="events">
            {disagreements.slice(0, ROWS_SHOWN).map((own) => (
              <li key={`${own.resource} ${own.at} ${own.reason}`}>
                <span class="billline">
                  <Time at={own.at} />
                  <b title={own.resource}>{short(own.resource)}</b>
                  <span class="about">{own.detail}</span>
                </span>
              </li>
            ))}
          </ul>
        </Card>
      )}
    </>
  );
}
