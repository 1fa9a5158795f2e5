// A server to look at: simulated guests, a past, three projects, alarms.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile, open as openFile, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

export const PASSWORD = "a-test-password";
const here = dirname(fileURLToPath(import.meta.url));
/** A debug build on a busy machine. */
const START_LIMIT_MS = 90_000;

function freePort() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** With `kept` its data are in that folder and stay there. */
export async function start(settings = "", kept = undefined) {
  const directory = kept ?? (await mkdtemp(join(tmpdir(), "orzo-page-")));
  const port = await freePort();
  const base = `http://127.0.0.1:${port}/`;
  const file = join(directory, "orzo.toml");
  await writeFile(
    file,
    `[server]\nlisten = "127.0.0.1:${port}"\ndata_directory = "${directory}/data"\n` +
      `[cloud]\nhypervisor = "simulated"\nadmin_password = "${PASSWORD}"\n${settings}`,
  );
  const log = await openFile(join(directory, "log"), "w");
  const child = spawn(process.env.ORZO, ["serve", "--config", file], { stdio: ["ignore", log.fd, log.fd] });
  const gone = new Promise((done) => child.once("exit", done));
  const stop = async () => {
    child.kill("SIGTERM");
    await gone;
    await log.close();
    if (!kept) await rm(directory, { recursive: true, force: true });
  };
  const until = Date.now() + START_LIMIT_MS;
  while (!(await fetch(`${base}readyz`).then((answer) => answer.ok, () => false))) {
    if (child.exitCode !== null || Date.now() > until) {
      const text = await readFile(join(directory, "log"), "utf8");
      child.kill("SIGKILL");
      throw new Error(`orzo is not ready:\n${text}`);
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  return { base, stop, processor: () => processorMs(child.pid) };
}

/** What a process has had of the processor, in milliseconds; it does not depend on what else the machine does. */
export async function processorMs(pid) {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ").at(-1).split(" ");
  // User and system time in ticks of 10 ms.
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** A past for the server; what was made. */
export async function past(base, options) {
  const { stdout } = await promisify(execFile)(join(here, "history.py"), [base, PASSWORD, ...options], { maxBuffer: 1 << 26 });
  return JSON.parse(stdout);
}

export async function token(base, user, project) {
  const answer = await fetch(`${base}identity/v3/auth/tokens`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      auth: {
        identity: { methods: ["password"], password: { user: { name: user, password: PASSWORD, domain: { id: "default" } } } },
        scope: { project: { name: project, domain: { id: "default" } } },
      },
    }),
  });
  if (!answer.ok) throw new Error(`log in as ${user}: ${answer.status}`);
  return answer.headers.get("X-Subject-Token");
}

export async function ask(base, token, method, path, body) {
  const answer = await fetch(base + path, {
    method,
    headers: { "X-Auth-Token": token, "Content-Type": "application/json", Accept: "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}
