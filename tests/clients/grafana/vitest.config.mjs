// How the front-end library runs outside a browser: a simulated document, and stubs for the two parts that need a real one.
import path from 'node:path';
import { defineConfig } from 'vitest/config';

const here = import.meta.dirname;
const library = path.join(here, 'node_modules/@grafana/prometheus/dist/esm');

export default defineConfig({
  resolve: {
    alias: [
      { find: /^monaco-editor(\/.*)?$/, replacement: path.join(here, 'nothing.mjs') },
      { find: /^@grafana\/assistant$/, replacement: path.join(here, 'nothing.mjs') },
      // The completion of the query editor, which the package does not export.
      { find: /^editor\/(.*)$/, replacement: `${library}/components/monaco-query-field/monaco-completion-provider/$1` },
    ],
  },
  test: {
    environment: 'jsdom',
    globals: false,
    include: ['*.test.mjs'],
    setupFiles: ['./browser.mjs'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // The library's files import each other in ways that only a bundler follows.
    server: { deps: { inline: [/@grafana/, /monaco-promql/, /react-/, /ol\//] } },
  },
});
