// Grafana's own front end for Prometheus, asked what a person asks of it, with Orzo as the data source. The server and its
// data are made by tests/clients/grafana.rs: series of a cloud's hosts, a metric of a resource, a firing alarm.
import { beforeAll, describe, expect, test } from 'vitest';
import { lastValueFrom } from 'rxjs';
import { CoreApp, dateTime } from '@grafana/data';
import { config, setBackendSrv, setTemplateSrv } from '@grafana/runtime';
import { PrometheusDatasource, PromQueryModeller, buildVisualQueryFromString } from '@grafana/prometheus';
import { Backend } from './backend.mjs';
import { getCompletions } from 'editor/completions.mjs';
import { DataProvider } from 'editor/data_provider.mjs';
import { getSituation } from 'editor/situation.mjs';

const url = process.env.ORZO_PROMETHEUS_URL;
const token = process.env.ORZO_READ_TOKEN;
const now = Number(process.env.ORZO_DATA_UNTIL);
const range = { from: dateTime((now - 900) * 1000), to: dateTime((now + 60) * 1000), raw: { from: 'now-15m', to: 'now' } };
const basic = `Basic ${Buffer.from(`token:${token}`).toString('base64')}`;

function dataSource(backend, jsonData = {}) {
  config.featureToggles ??= {};
  setBackendSrv(backend);
  setTemplateSrv({
    replace: (text) => text,
    containsTemplate: () => false,
    getVariables: () => [],
    getAdhocFilters: () => [],
    updateTimeRange() {},
  });
  return new PrometheusDatasource({
    id: 1, uid: 'orzo', name: 'Orzo', type: 'prometheus', access: 'proxy', url, readOnly: false,
    meta: { id: 'prometheus', module: '', info: {} },
    jsonData: { cacheLevel: 'None', httpMethod: 'POST', ...jsonData },
  });
}

function asking(targets) {
  return {
    app: CoreApp.Explore, requestId: '1', interval: '30s', intervalMs: 30_000, maxDataPoints: 100, range, scopedVars: {},
    timezone: 'utc', startTime: 0, panelId: 1, targets: targets.map((target, at) => ({ refId: 'ABC'[at], ...target })),
  };
}

describe.each([
  ['basic authentication, POST', basic, 'POST'],
  ['a bearer token, GET', `Bearer ${token}`, 'GET'],
])('%s', (_, authorization, httpMethod) => {
  let backend, source;
  beforeAll(async () => {
    backend = new Backend(url, authorization);
    source = dataSource(backend, { httpMethod });
    await source.init();
    await source.languageProvider.start(range);
  });

  test('save & test', async () => {
    expect(await source.testDatasource()).toMatchObject({ status: 'success' });
    const refused = dataSource(new Backend(url, 'Bearer orzo_wrong'));
    await expect(refused.testDatasource()).rejects.toThrow();
    source = dataSource(backend, { httpMethod });
    await source.init();
    await source.languageProvider.start(range);
  });

  test('metrics and labels can be browsed', async () => {
    const language = source.languageProvider;
    expect(language.retrieveMetrics()).toEqual(expect.arrayContaining(['host_load', 'took_bucket', 'disk_read']));
    expect(language.retrieveHistogramMetrics()).toContain('took_bucket');
    expect(language.retrieveLabelKeys()).toEqual(expect.arrayContaining(['__name__', 'dc.name', 'host', 'le', 'resource_id']));
    expect(language.retrieveMetricsMetadata().disk_read).toMatchObject({ type: expect.any(String), help: expect.any(String) });
    expect(await language.queryLabelKeys(range, '{__name__="host_load"}')).toEqual(['__name__', 'db', 'dc.name', 'host']);
    expect(await language.queryLabelValues(range, 'host', 'host_load')).toEqual(['h1', 'h2', 'h3']);
    // Names that PromQL did not know before: the library escapes them in the path.
    expect(await language.queryLabelValues(range, 'dc.name')).toEqual(['north', 'south']);
    expect(backend.asked.some(({ path }) => path === 'api/v1/label/U__dc_2e_name/values')).toBe(true);
    expect(await language.queryLabelValues(range, 'host', '{host=~"h[12]"}', '1')).toHaveLength(1);
  });

  test('variables of dashboards', async () => {
    const find = async (query) => (await source.metricFindQuery(query, { range })).map(({ text }) => text);
    expect(await find('label_names()')).toEqual(expect.arrayContaining(['host', 'le']));
    expect(await find('label_values(host)')).toEqual(['h1', 'h2', 'h3']);
    expect(await find('label_values(host_load{host!="h1"}, host)')).toEqual(['h2', 'h3']);
    expect(await find('metrics(host_.*)')).toEqual(['host_load']);
    expect(await find('query_result(topk(1, host_load))')).toEqual([expect.stringMatching(/host="h3".* 3 /)]);
  });

  test('filters of dashboards', async () => {
    const keys = await source.getTagKeys({ timeRange: range, filters: [], queries: [] });
    const values = await source.getTagValues({ key: 'host', timeRange: range, filters: [] });
    // Grafana's own suggestions are asked first; without them it browses, as it does with any Prometheus.
    expect([keys, values].every(Array.isArray)).toBe(true);
  });

  test('the query editor completes names, labels and values', async () => {
    const provider = new DataProvider({ languageProvider: source.languageProvider, historyProvider: [] });
    const complete = async (text) => {
      const at = text.indexOf('^');
      const situation = getSituation(text.replace('^', ''), at);
      expect(situation, text).not.toBeNull();
      return (await getCompletions(situation, provider, range)).map(({ label }) => label);
    };
    expect(await complete('^')).toEqual(expect.arrayContaining(['host_load', 'disk_read', 'rate']));
    expect(await complete('sum(^)')).toEqual(expect.arrayContaining(['host_load']));
    expect(await complete('host_load{^}')).toEqual(['db', 'dc.name', 'host']);
    expect(await complete('host_load{host="^"}')).toEqual(['h1', 'h2', 'h3']);
    expect(await complete('host_load{"dc.name"="south",host="^"}')).toEqual(['h2']);
    expect(await complete('sum by (^) (host_load)')).toEqual(expect.arrayContaining(['host']));
    const names = await getCompletions({ type: 'AT_ROOT' }, provider, range, 'host_lo');
    expect(names.filter(({ type }) => type === 'METRIC_NAME').map(({ label }) => label)).toEqual(['host_load']);
    expect(names.find(({ label }) => label === 'host_load').insertText).toBe('host_load');
  });

  test('a query of the builder is answered', async () => {
    const text = 'sum by(host) (rate(hits_total{host=~"h1|h2"}[5m]))';
    const { query, errors } = buildVisualQueryFromString(text);
    expect(errors).toEqual([]);
    const rendered = new PromQueryModeller().renderQuery(query);
    const answer = await lastValueFrom(source.query(asking([{ expr: rendered, range: true, format: 'time_series' }])));
    expect(answer.error).toBeUndefined();
    expect(answer.data.map((frame) => frame.fields[1].labels.host).sort()).toEqual(['h1', 'h2']);
    for (const frame of answer.data) {
      expect(frame.fields[0].values.length).toBeGreaterThan(5);
      expect(frame.fields[1].values.at(-3)).toBeCloseTo(1 / 30, 6);
    }
  });

  test('tables, heatmaps, and errors in words', async () => {
    const table = await lastValueFrom(source.query(asking([{ expr: 'host_load', instant: true, format: 'table' }])));
    const [frame] = table.data;
    expect(frame.fields.map(({ name }) => name)).toEqual(expect.arrayContaining(['Time', 'host', 'dc.name', 'Value']));
    expect(frame.length).toBe(3);
    const heat = await lastValueFrom(source.query(asking([{ expr: 'sum by (le) (took_bucket)', range: true, format: 'heatmap' }])));
    expect(heat.data.flatMap((one) => one.fields.map(({ name, config }) => config?.displayNameFromDS ?? name))).toEqual(
      expect.arrayContaining(['1', '5', '+Inf'])
    );
    const wrong = await lastValueFrom(source.query(asking([{ expr: 'sum(', range: true }, { expr: 'host_load', range: true }])));
    expect(wrong.errors?.[0]?.message ?? wrong.error?.message).toMatch(/bad_data: .*unclosed left parenthesis/);
    expect(wrong.data.length).toBe(3);
  });

  test('exemplars', async () => {
    expect(source.exemplarsAvailable).toBe(true);
    const target = { expr: 'histogram_quantile(0.9, sum by (le) (rate(took_bucket[5m])))', range: true, exemplar: true };
    const answer = await lastValueFrom(source.query(asking([target])));
    expect(answer.error).toBeUndefined();
    expect(backend.asked.filter(({ path, status }) => path === 'api/v1/query_exemplars' && status === 200).length).toBeGreaterThan(1);
    const served = { ...target, expr: 'histogram_quantile(0.9, sum by (le) (rate(served_seconds_bucket[5m])))' };
    const { data } = await lastValueFrom(source.query(asking([served])));
    const frame = data.find(({ meta }) => meta?.custom?.resultType === 'exemplar');
    expect(frame.fields.find(({ name }) => name === 'Value').values).toEqual([1.25]);
    expect(frame.fields.find(({ name }) => name === 'trace_id').values).toEqual(['0af7651916cd43dd8448eb211c80319c']);
  });

  test('what a name means is told', async () => {
    const about = await source.languageProvider.queryMetricsMetadata();
    expect(about.served_seconds).toMatchObject({ type: 'histogram', help: 'How long answers took.' });
  });

  test('rules and alerts', async () => {
    expect(backend.asked.some(({ path, status }) => path === 'api/v1/rules' && status === 200)).toBe(true);
    const { data: rules } = await source.metadataRequest('/api/v1/rules');
    const [rule] = rules.data.groups[0].rules;
    expect(rule).toMatchObject({ name: 'hosts are busy', type: 'alerting', state: 'firing', health: 'ok' });
    // Alarms are not recordings, so nothing is offered to be expanded in a query.
    expect(source.ruleMappings).toEqual({});
    const { data: alerts } = await source.metadataRequest('/api/v1/alerts');
    expect(alerts.data.alerts[0].labels.alertname).toBe('hosts are busy');
  });

  test('what a read token may not do is refused in words', async () => {
    await expect(backend.ask('POST', 'api/v1/admin/tsdb/delete_series', { form: { 'match[]': 'host_load' } })).rejects.toMatchObject({ status: 403 });
    await expect(backend.ask('GET', 'tokens', {})).rejects.toMatchObject({ status: 403 });
  });

  test('nothing failed on the way that was not meant to', () => {
    const failed = backend.asked.filter(({ status, body, query, path }) =>
      status >= 400 && !/suggestions|tokens|delete_series/.test(path) && !/sum%28(&|$)/.test(body ?? query));
    expect(failed).toEqual([]);
  });
});
