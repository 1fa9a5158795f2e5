// Stands for Grafana's server: the front end asks it, it asks the data source. What it sends to the data source is what
// Grafana's own backend for Prometheus sends: health as `1+1` at 4 and buildinfo, queries as forms, and the resources'
// requests as they are. Every request is kept, so that a test can look at it.
import { from } from 'rxjs';

export class Backend {
  constructor(url, authorization) {
    this.url = url;
    this.authorization = authorization;
    this.asked = [];
  }

  fetch(request) {
    return from(this.answer(request));
  }

  async get(url, params) {
    return (await this.answer({ url, params, method: 'GET' })).data;
  }

  async answer({ url, method = 'GET', params, data, headers }) {
    const [path] = url.split('?');
    if (path.endsWith('/health')) {
      return answered(await this.health());
    }
    if (path === '/api/ds/query') {
      return answered(await this.queries(data));
    }
    const resource = path.split('/resources/')[1];
    if (resource === undefined) {
      throw new Error(`Grafana's server has no ${url} here`);
    }
    const sent = method === 'POST' ? { form: data } : { query: params ?? data };
    return this.ask(method, resource, { ...sent, headers });
  }

  // "Save & test".
  async health() {
    try {
      const { data } = await this.ask('POST', 'api/v1/query', { form: { query: '1+1', time: 4 } });
      if (JSON.stringify(data.data) !== '{"resultType":"scalar","result":[4,"2"]}') {
        return { status: 'ERROR', message: `1+1 is ${JSON.stringify(data)}` };
      }
      const { data: build } = await this.ask('GET', 'api/v1/status/buildinfo', {});
      // With features Grafana takes the server for a Mimir and looks for its ruler.
      const isMimir = Object.keys(build.data.features ?? {}).length > 0;
      return { status: isMimir ? 'ERROR' : 'OK', message: 'Successfully queried the Prometheus API.' };
    } catch (error) {
      return { status: 'ERROR', message: String(error.data?.error ?? error.statusText ?? error) };
    }
  }

  async queries({ queries, from, to }) {
    const results = {};
    for (const one of queries) {
      const frames = [];
      const [start, end] = [Number(from) / 1000, Number(to) / 1000];
      try {
        if (one.range || !one.instant) {
          const form = { query: one.expr, start, end, step: (one.intervalMs ?? 15000) / 1000 };
          frames.push(...seriesFrames(one, await this.ask('POST', 'api/v1/query_range', { form })));
        }
        if (one.instant) {
          frames.push(...seriesFrames(one, await this.ask('POST', 'api/v1/query', { form: { query: one.expr, time: end } })));
        }
        if (one.exemplar) {
          const form = { query: one.expr, start, end };
          frames.push(...exemplarFrames(one, await this.ask('POST', 'api/v1/query_exemplars', { form })));
        }
        results[one.refId] = { status: 200, frames };
      } catch (error) {
        if (!error.data) {
          throw error;
        }
        const text = `${error.data.errorType}: ${error.data.error}`;
        results[one.refId] = { status: error.status, error: text, frames: [] };
      }
    }
    return { results };
  }

  async ask(method, path, { query, form, headers = {} }) {
    const url = new URL(`${this.url}/${path}`);
    url.search = encoded(query ?? {});
    const body = method === 'POST' ? encoded(form ?? {}) : undefined;
    const response = await fetch(url, {
      method,
      body,
      headers: {
        ...headers,
        authorization: this.authorization,
        ...(body === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
      },
    });
    const text = await response.text();
    this.asked.push({ method, path, query: url.search, body, status: response.status });
    const data = text.startsWith('{') ? JSON.parse(text) : text;
    if (!response.ok) {
      // As the front end sees a failed request.
      throw { status: response.status, statusText: response.statusText, data, config: {} };
    }
    return answered(data);
  }
}

function answered(data) {
  return { data, status: 200, ok: true, headers: new Headers(), statusText: 'OK', type: 'basic', redirected: false, url: '', config: {} };
}

function encoded(values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return new URLSearchParams(pairs.flatMap(([name, value]) => [value].flat().map((one) => [name, one]))).toString();
}

const number = (text) => ({ '+Inf': Infinity, '-Inf': -Infinity, NaN })[text] ?? Number(text);

function seriesFrames({ refId }, { data }) {
  const { resultType, result } = data.data;
  const rows = resultType === 'scalar' ? [{ metric: {}, values: [result] }] : result;
  return rows.map((row) => {
    const points = row.values ?? [row.value];
    return {
      schema: {
        refId,
        meta: { type: 'timeseries-multi', custom: { resultType } },
        fields: [
          { name: 'Time', type: 'time', typeInfo: { frame: 'time.Time' } },
          { name: 'Value', type: 'number', typeInfo: { frame: 'float64' }, labels: row.metric },
        ],
      },
      data: { values: [points.map(([time]) => time * 1000), points.map(([, value]) => number(value))] },
    };
  });
}

function exemplarFrames({ refId }, { data }) {
  const rows = data.data.flatMap((series) => series.exemplars);
  const labels = [...new Set(rows.flatMap((row) => Object.keys(row.labels)))].sort();
  return [{
    schema: {
      refId,
      name: 'exemplar',
      meta: { custom: { resultType: 'exemplar' } },
      fields: [
        { name: 'Time', type: 'time' },
        { name: 'Value', type: 'number' },
        ...labels.map((name) => ({ name, type: 'string' })),
      ],
    },
    data: {
      values: [
        rows.map((row) => row.timestamp * 1000),
        rows.map((row) => number(row.value)),
        ...labels.map((name) => rows.map((row) => row.labels[name] ?? '')),
      ],
    },
  }];
}
