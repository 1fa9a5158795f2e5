// Bundles the page: src/ → dist/, every file under a name with a hash of its content, and compressed twice (.br, .gz).
// Run by api/build.rs in a copy of this folder, beside node_modules.
import { build } from "esbuild";
import { readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const out = "dist";
await rm(out, { recursive: true, force: true });
const result = await build({
  entryPoints: { page: "src/main.tsx" },
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  charset: "utf8",
  metafile: true,
  outdir: out,
  entryNames: "[name]-[hash]",
  chunkNames: "part-[hash]",
  jsx: "automatic",
  jsxImportSource: "preact",
  define: { "process.env.NODE_ENV": '"production"' },
});

const outputs = Object.entries(result.metafile.outputs);
const entry = outputs.find(([, output]) => output.entryPoint === "src/main.tsx");
if (!entry) throw new Error("the bundle has no entry");
const [script, { cssBundle }] = entry;
const assets = [
  cssBundle ? `<link rel="stylesheet" href="assets/${basename(cssBundle)}">` : "",
  `<script type="module" src="assets/${basename(script)}"></script>`,
].join("\n");
const index = (await readFile("index.html", "utf8")).replace("<!-- assets -->", () => assets);
await writeFile(join(out, "index.html"), index);

for (const file of [...outputs.map(([path]) => path), join(out, "index.html")]) {
  const text = await readFile(file);
  const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: text.length } };
  await writeFile(`${file}.br`, brotliCompressSync(text, quality));
  await writeFile(`${file}.gz`, gzipSync(text, { level: 9 }));
  await rm(file);
}
