// The page in a real browser. Every check is a sentence; what fails is told at the end, all of it.
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { faults, launch, logIn, open, settled } from "./browser.mjs";
import { ask, past, PASSWORD, start, token } from "./server.mjs";

/** Assets of all views together, compressed, as they went over the wire. */
const ASSETS_BYTES_MAX = 300_000;

const { values: chosen } = parseArgs({ options: { sources: { type: "string" }, pictures: { type: "string" } } });
const failures = [];
let checks = 0;

function check(name, wrong) {
  checks += 1;
  const list = Array.isArray(wrong) ? wrong : wrong ? [wrong] : [];
  for (const one of list) failures.push(`${name}: ${one}`);
  if (list.length > 0) console.log(`  FAILED ${name}: ${list.join("; ")}`);
}

function same(name, got, wanted) {
  check(name, JSON.stringify(got) === JSON.stringify(wanted) ? "" : `got ${JSON.stringify(got)}, not ${JSON.stringify(wanted)}`);
}

/** Asks until there is something, for as long as a debug build on a busy machine may take. */
async function until(name, ask) {
  const limit = Date.now() + 90_000;
  for (;;) {
    const found = await ask();
    if (found.length > 0) return found;
    if (Date.now() > limit) throw new Error(`${name}: not within 90 s`);
    await new Promise((done) => setTimeout(done, 500));
  }
}

async function step(name, action) {
  const started = Date.now();
  try {
    await action();
  } catch (error) {
    check(name, `${error.stack ?? error}`);
  }
  console.log(`${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
}

/** Both languages have every text, with the same places to fill in. */
async function texts() {
  const source = await readFile(join(chosen.sources, "text.ts"), "utf8");
  const table = (name) => {
    const body = source.slice(source.indexOf(`const ${name}`), source.indexOf("\n};", source.indexOf(`const ${name}`)));
    return new Map([...body.matchAll(/^ {2}"([^"]+)": "((?:[^"\\]|\\.)*)",$/gm)].map(([, key, text]) => [key, text]));
  };
  const [en, zh] = [table("en"), table("zh")];
  check("texts are found", en.size > 150 ? "" : `only ${en.size}`);
  same("both languages have the same texts", [...zh.keys()].sort(), [...en.keys()].sort());
  const places = (text) => [...(text ?? "").matchAll(/\{\w+\}/g)].map(([place]) => place).sort();
  for (const [key, text] of en) same(`places in ${key}`, places(zh.get(key)), places(text));
  for (const [key, text] of zh) if (!/[\u4e00-\u9fff]|^CPU$|^\{n\} \/ \{all\}$/.test(text)) check(`${key} in Chinese`, text);
}

const browser = await launch();
const server = await start('[rating]\ninterval = "1s"\n');
const { base } = server;
await rm(chosen.pictures, { recursive: true, force: true });
await mkdir(chosen.pictures, { recursive: true });

try {
  await step("texts", texts);
  const made = await past(base, ["--guests", "24", "--projects", "3", "--hosts", "4", "--days", "1"]);
  const [own, other] = [made.projects[0], made.projects[1]];
  const guest = own.guests[0];
  const admin = await token(base, "admin", "admin");
  const tenant = await token(base, own.user, own.name);
  const rule = (id, threshold) => ({
    name: `hot ${threshold}`,
    type: "gnocchi_resources_threshold",
    gnocchi_resources_threshold_rule: {
      metric: "cpu_util", resource_id: id, resource_type: "instance", threshold, granularity: 300,
      aggregation_method: "mean", comparison_operator: "gt", evaluation_periods: 1,
    },
  });
  // The longest names that may be: one word each, of an instance that is busiest.
  const long = { id: "0f0f0f0f-0f0f-4f0f-8f0f-0f0f0f0f0f0f", display_name: "a-name-without-an-end-".repeat(11), host: `${"far-away-".repeat(20)}host` };
  await ask(base, admin, "POST", "metric/v1/resource/instance", { ...long, project_id: own.id, user_id: own.user_id, flavor_name: "m1.".repeat(60), metrics: { cpu_util: { archive_policy_name: "ceilometer-low", unit: "%" } } });
  const minute = Math.floor(Date.now() / 60_000) * 60;
  await ask(base, admin, "POST", `metric/v1/resource/instance/${long.id}/metric/cpu_util/measures`, [...Array(60).keys()].map((back) => ({ timestamp: minute - back * 60, value: 99.9 })));
  const alarm = await ask(base, tenant, "POST", "alarming/v2/alarms", rule(guest, 9));
  const otherAlarm = await ask(base, await token(base, other.user, other.name), "POST", "alarming/v2/alarms", rule(other.guests[0], 50));

  // Rated lines of a week, of two services; another project's are never to be seen.
  const point = (project, resource, price) => ({ vol: { unit: "instance", qty: 24 }, rating: { price }, groupby: { project_id: project, id: resource }, metadata: { flavor_name: "small" } });
  const frames = [...Array(7).keys()].map((back) => {
    const begin = new Date(Date.now() - back * 86_400_000);
    begin.setUTCMinutes(0, 0, 0);
    const usage = { instance: made.projects.flatMap((project) => project.guests.slice(0, 3).map((guest, place) => point(project.id, guest, 1.5 + place))), "volume.size": [point(own.id, "a volume", 0.25)] };
    return { period: { begin: begin.toISOString(), end: new Date(begin.getTime() + 3_600_000).toISOString() }, usage };
  });
  await ask(base, admin, "POST", "rating/v2/dataframes", { dataframes: frames });

  // Real usage: what an interface has received since yesterday, with two hours in which nobody looked, at a price.
  const nic = `${guest}-tap0`;
  const hour = Math.floor(Date.now() / 3_600_000) * 3600;
  const [begin, end] = [hour - 24 * 3600, hour - 4 * 3600].map((at) => new Date(at * 1000).toISOString());
  const hashmap = "rating/v1/rating/module_config/hashmap/";
  for (const [service, cost] of [["network.incoming.bytes", "0.002"], ["instance", "0.05"]]) {
    const { service_id } = await ask(base, admin, "POST", `${hashmap}services`, { name: service });
    await ask(base, admin, "POST", `${hashmap}mappings?force=true`, { service_id, type: "flat", cost, start: begin });
  }
  const day = [...Array(12 * 22).keys()].map((step) => hour - 23 * 3600 + step * 300);
  const received = day.filter((at) => at < hour - 12 * 3600 || at >= hour - 10 * 3600);
  const measures = received.map((at) => ({ timestamp: at, value: (at - day[0]) * 40_000 }));
  await ask(base, admin, "POST", "metric/v1/batch/resources/metrics/measures?create_metrics=true", {
    [nic]: { "network.incoming.bytes": { archive_policy_name: "ceilometer-low", unit: "B", measures } },
  });
  // Its hours may have been rated before there were points: once all of them are, they are rated again.
  await until("the project is rated", async () => {
    const { results } = await ask(base, admin, "GET", "rating/v2/scope?limit=1000").catch(() => ({ results: [] }));
    return results.filter((scope) => scope.scope_id === own.id && Date.parse(scope.last_processed_timestamp) >= Date.parse(end));
  });
  await ask(base, admin, "POST", "rating/v2/task/reprocesses", {
    scope_ids: [own.id], start_reprocess_time: begin, end_reprocess_time: end, reason: "points came later",
  });
  const linesOf = async (resource) => (await ask(base, tenant, "GET", `rating/v2/lines?limit=100&begin=${begin}&resource_id=${encodeURIComponent(resource)}`)).lines;
  const usage = await until("usage is rated", async () => (await linesOf(nic)).filter((line) => line.samples > 1 && Date.parse(line.end) === Date.parse(end)));
  check("a tenant's line is of what it received", usage.every((line) => line.scope === own.id && line.service === "network.incoming.bytes") ? "" : JSON.stringify(usage[0]));
  same("an hour's traffic and its price", [usage.at(-1).quantity, usage.at(-1).cost].map(Number), [144, 0.288]);

  // What a bill rests on: a line's explanation, the lines of a resource, what was measured.
  const { lines } = await ask(base, tenant, "GET", `rating/v2/lines?limit=5&begin=${new Date(Date.now() - 20 * 86_400_000).toISOString()}`);
  check("a tenant has lines of its own", lines.length > 0 && lines.every((line) => line.scope === own.id) ? "" : JSON.stringify(lines));
  const lineMonth = usage[0].begin.slice(0, 7);
  const views = {
    bill_line: `#/costs/line/${usage.at(-1).id}`,
    bill_line_pushed: `#/costs/line/${lines[0].id}`,
    bill_lines: `#/costs/lines?month=${lineMonth}&resource=${encodeURIComponent(nic)}&project=${own.id}`,
    bill_complete: `#/costs/complete?month=${lineMonth}&project=${own.id}`,
    costs: "#/costs",
    costs_resources: "#/costs?by=id",
    overview: "#/",
    guests: "#/guests",
    instance: `#/guests/${guest}`,
    instance_long: `#/guests/${long.id}`,
    instance_month: `#/guests/${guest}?range=30d`,
    explore: "#/explore?q=sum%20by%20(host)%20(cpu_util)&range=24h",
    explore_empty: "#/explore",
    explore_table: "#/explore?q=cpu_util&view=table",
    alarms: "#/alarms",
    alarm: `#/alarms/${alarm.alarm_id}`,
    events: "#/events",
    cardinality: "#/cardinality",
    missing: "#/missing?meter=cpu_util",
    missing_nobody: "#/missing?meter=disk_reads_total",
  };
  const sizes = new Map();

  for (const [user, modes] of [
    ["admin", [[1280, "light", "en"], [1280, "dark", "zh"], [400, "light", "zh"], [400, "dark", "en"]]],
    [own.user, [[1280, "dark", "en"], [400, "light", "zh"]]],
  ]) {
    for (const [width, theme, language] of modes) {
      const name = `${user} ${width} ${theme} ${language}`;
      await step(`every view: ${name}`, async () => {
        const seen = await open(browser, { width, height: width > 800 ? 900 : 800, theme, language });
        await seen.page.goto(base);
        await seen.page.waitForSelector("form.card");
        check(`log-in ${name}`, [...(await faults(seen.page)), ...seen.problems]);
        await seen.page.screenshot({ path: join(chosen.pictures, `login-${width}-${theme}-${language}.png`), fullPage: true });
        await logIn(seen.page, base, user, PASSWORD);
        for (const [view, hash] of Object.entries(user === "admin" ? { ...views, health: "#/health" } : views)) {
          await seen.page.goto(base + hash);
          await settled(seen.page);
          check(`${view} ${name}`, [...(await faults(seen.page)), ...seen.problems.splice(0)]);
          same(`language of ${view} ${name}`, await seen.page.evaluate(() => document.documentElement.lang), language);
          await seen.page.screenshot({ path: join(chosen.pictures, `${view}-${user}-${width}-${theme}-${language}.png`), fullPage: true });
        }
        if (user !== "admin") {
          const strangers = made.projects.filter((project) => project !== own).flatMap((project) => [project.id, project.user_id, ...project.guests]);
          strangers.push(otherAlarm.alarm_id);
          for (const { url, text } of await seen.told()) {
            const leak = strangers.find((id) => text.includes(id));
            check(`another's ids in ${url}`, leak);
          }
          same("a tenant has no view of the pipeline", await seen.page.$$eval("nav a[href='#/health']", (links) => links.length), 0);
        }
        for (const [url, bytes] of seen.sizes) sizes.set(url, Math.max(bytes, sizes.get(url) ?? 0));
        await seen.close();
      });
    }
  }
  const bytes = [...sizes.values()].reduce((sum, one) => sum + one, 0);
  console.log(`assets of all views: ${bytes} bytes over the wire in ${sizes.size} files`);
  check("assets are small", bytes > 10_000 && bytes < ASSETS_BYTES_MAX ? "" : `${bytes} bytes`);

  await step("a tenant opens what is another's", async () => {
    const seen = await open(browser);
    await logIn(seen.page, base, own.user, PASSWORD);
    await seen.expecting(["404", "403"], async () => {
      for (const [hash, words] of [
        [`#/guests/${other.guests[0]}`, "There is no instance"],
        [`#/alarms/${otherAlarm.alarm_id}`, "belongs to another project"],
        ["#/health", "Your role does not allow this"],
        [`#/missing?meter=cpu_util&resource=${other.guests[0]}`, "no such resource"],
      ]) {
        await seen.page.goto(base + hash);
        await settled(seen.page);
        const text = await seen.page.$eval("#main", (main) => main.textContent);
        check(`${hash} says so`, text.includes(words) ? "" : text.slice(0, 400));
      }
    });
    const told = (await seen.told()).filter(({ url }) => !url.includes(other.guests[0]));
    check("nothing of the other's instance is told", told.filter(({ text }) => text.includes(other.guests[0])).map(({ url }) => url));
    check("nothing else went wrong", seen.problems);
    await seen.close();
  });

  await step("zoom by dragging and by keys", async () => {
    const seen = await open(browser);
    const { page } = seen;
    await logIn(page, base, "admin", PASSWORD);
    await page.goto(`${base}#/guests/${guest}`);
    await settled(page);
    const params = async () => {
      const text = await page.evaluate(() => location.hash.split("?")[1] ?? "");
      const query = new URLSearchParams(text);
      return [Number(query.get("from")), Number(query.get("to"))];
    };
    const over = await page.$(".u-over");
    const box = await over.boundingBox();
    await page.mouse.move(box.x + box.width * 0.25, box.y + 40);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 60, { steps: 6 });
    await page.mouse.up();
    await page.waitForFunction(() => location.hash.includes("from="));
    await settled(page);
    const [from, to] = await params();
    check("a quarter of a day is shown", Math.abs(to - from - 21600) < 1800 ? "" : `${to - from} s`);
    await page.focus(".plot");
    await page.keyboard.press("+");
    await page.waitForFunction((before) => !location.hash.includes(`from=${before}&`), {}, from);
    await settled(page);
    const [nearFrom, nearTo] = await params();
    check("plus shows half of it", Math.abs((nearTo - nearFrom) / (to - from) - 0.5) < 0.1 ? "" : `${nearTo - nearFrom} s`);
    await page.focus(".plot");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => document.querySelector("figcaption [aria-live]").textContent.includes("%"));
    await page.keyboard.down("Shift");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.up("Shift");
    await page.waitForFunction((before) => !location.hash.includes(`from=${before}&`), {}, nearFrom);
    const [movedFrom] = await params();
    check("shift and left go back in time", movedFrom < nearFrom ? "" : `${movedFrom}`);
    await settled(page);
    await page.focus(".plot");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !location.hash.includes("from="));
    check("nothing went wrong", seen.problems);
    await seen.close();
  });

  await step("completion of PromQL", async () => {
    const seen = await open(browser);
    const { page } = seen;
    await logIn(page, base, "admin", PASSWORD);
    await page.goto(`${base}#/explore`);
    await settled(page);
    const offered = async (wanted) => {
      await page.waitForFunction(
        (wanted) => [...(document.querySelector(".editor").shadowRoot.querySelectorAll(".cm-tooltip-autocomplete li") ?? [])].some((one) => one.textContent.includes(wanted)),
        { timeout: 10_000 },
        wanted,
      );
    };
    const accept = async () => {
      // The list takes keys only after a moment, so that a fast typist does not choose by accident.
      await new Promise((done) => setTimeout(done, 150));
      await page.keyboard.press("Enter");
    };
    const text = () => page.$eval(".editor", (host) => host.shadowRoot.querySelector(".cm-content").innerText.trim());
    await page.keyboard.type("avg_over_t");
    await offered("avg_over_time");
    await accept();
    await page.keyboard.type("(cpu_ut");
    await offered("cpu_util");
    await accept();
    await page.keyboard.type("{display_n");
    await offered("display_name");
    await accept();
    await page.keyboard.type('="guest-2');
    await offered("guest-2");
    await page.keyboard.press("Escape");
    check("what was completed", (await text()).startsWith('avg_over_time(cpu_util{display_name="guest-2') ? "" : await text());
    await page.screenshot({ path: join(chosen.pictures, "completion.png") });
    await page.keyboard.down("Control");
    await page.keyboard.press("a");
    await page.keyboard.up("Control");
    await page.keyboard.type("topk(3, cpu_util");
    await page.keyboard.press("Escape");
    await page.keyboard.down("Control");
    await page.keyboard.press("Enter");
    await page.keyboard.up("Control");
    await page.waitForSelector(".uplot");
    same("three lines", await page.$$eval(".legend", (all) => all.length >= 3), true);
    check("nothing went wrong", seen.problems);
    await seen.expecting(["400"], async () => {
      await page.goto(`${base}#/explore?q=sum(cpu_util)%20by%20)`);
      await page.waitForSelector(".failure .detail");
      await page.waitForFunction(() => document.querySelector(".editor").shadowRoot.querySelector(".cm-lintRange-error, .cm-lintPoint-error"), { timeout: 10_000 });
      await page.screenshot({ path: join(chosen.pictures, "mistake.png") });
    });
    await seen.close();
  });

  await step("keyboard alone, switches, what-if, missing meters", async () => {
    const seen = await open(browser, { theme: "light" });
    const { page } = seen;
    await page.goto(`${base}#/alarms`);
    await page.waitForSelector("input[name=user]");
    await page.keyboard.type("admin"); // the first field has the focus
    await page.keyboard.press("Tab");
    await page.keyboard.type("wrong");
    await seen.expecting(["401"], async () => {
      await page.keyboard.press("Enter");
      await page.waitForSelector(".problem");
    });
    await page.focus("input[name=password]");
    await page.keyboard.press("End");
    for (let count = 0; count < 5; count++) await page.keyboard.press("Backspace");
    await page.keyboard.type(PASSWORD);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#main h1");
    await settled(page);
    same("the place that was asked for is shown", await page.evaluate(() => location.hash), "#/alarms");
    await page.focus("nav a[href='#/events']");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => location.hash === "#/events");
    await settled(page);
    same("the new view's head has the focus", await page.evaluate(() => document.activeElement.tagName), "H1");
    await page.focus(".skip");
    await page.keyboard.press("Enter");
    same("the first link skips to the content", await page.evaluate(() => document.activeElement.tagName), "H1");

    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.select(".side .switches select:nth-of-type(2)", "dark");
    check("dark is another ground", (await ground()) !== light ? "" : light);
    await page.select(".side .switches select:nth-of-type(1)", "zh");
    await page.waitForFunction(() => document.querySelector("#main h1").textContent === "事件");
    await page.goto(`${base}?again#/events`);
    await page.waitForFunction(() => document.querySelector("#main h1")?.textContent === "事件");
    await settled(page);
    await page.select(".side .switches select:nth-of-type(1)", "en");

    await page.goto(`${base}#/alarms/${alarm.alarm_id}`);
    await settled(page);
    const fired = () => page.$eval(".card .quiet + .chart, .card p.quiet", (one) => one.textContent);
    const before = await fired();
    await page.$eval("input[type=number]", (field) => field.select());
    await page.focus("input[type=number]");
    await page.keyboard.down("Control");
    await page.keyboard.press("a");
    await page.keyboard.up("Control");
    await page.keyboard.type("99");
    await page.keyboard.press("Enter");
    await page.waitForFunction((before) => document.querySelector(".card p.quiet").textContent !== before, {}, before);
    check("with a threshold of 99 it never fires", (await fired()).includes("Fired 0 times") ? "" : await fired());

    await page.goto(`${base}#/missing?meter=cpu_util`);
    await settled(page);
    check("a meter that is there", (await page.$eval(".verdict", (one) => one.textContent)).includes("up to date") ? "" : await page.$eval(".verdict", (one) => one.textContent));
    await page.goto(`${base}#/missing?meter=cpu_utils`);
    await settled(page);
    check("a meter that nobody makes", (await page.$eval(".steps", (one) => one.textContent)).includes("Perhaps") ? "" : await page.$eval(".steps", (one) => one.textContent));

    // A token that is revoked elsewhere: the next question leads to the log-in, and back to the same place.
    await page.goto(`${base}#/guests`);
    await settled(page);
    const held = await page.evaluate(() => JSON.parse(sessionStorage.getItem("orzo.session")).token);
    await fetch(`${base}identity/v3/auth/tokens`, { method: "DELETE", headers: { "X-Auth-Token": held, "X-Subject-Token": held } });
    await seen.expecting(["401"], async () => {
      await page.evaluate(() => (location.hash = "#/cardinality"));
      await page.waitForSelector("input[name=user]");
    });
    const said = await page.$eval("form.card [role=status]", (one) => one.textContent);
    check("why one is asked again", said.includes("session is over") ? "" : said);
    same("the token is forgotten", await page.evaluate(() => sessionStorage.getItem("orzo.session")), null);
    await page.type("input[name=user]", "admin");
    await page.type("input[name=password]", PASSWORD);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#main h1");
    same("the same place again", await page.evaluate(() => location.hash), "#/cardinality");
    await settled(page);
    await page.click(".user button");
    await page.waitForSelector("input[name=user]");
    same("logged out", await page.evaluate(() => sessionStorage.length), 0);
    check("nothing went wrong", seen.problems);
    await seen.close();
  });

  await step("a server that is gone for a while", async () => {
    const seen = await open(browser);
    const { page } = seen;
    await logIn(page, base, "admin", PASSWORD);
    await settled(page);
    await seen.expecting(["ERR_INTERNET_DISCONNECTED"], async () => {
      await page.setOfflineMode(true);
      await page.evaluate(() => (location.hash = "#/cardinality"));
      await page.waitForSelector(".failure button");
      const text = await page.$eval(".failure", (one) => one.textContent);
      check("it says that it cannot be reached", text.includes("does not answer") ? "" : text);
      await page.screenshot({ path: join(chosen.pictures, "gone.png") });
      await page.setOfflineMode(false);
      await page.click(".failure button");
      await page.waitForSelector("table");
      same("then it answers", (await page.$$(".failure")).length, 0);
    });
    const problems = seen.problems.filter((one) => !one.includes("ERR_INTERNET_DISCONNECTED"));
    check("nothing else went wrong", problems);
    await seen.close();
  });

  await step("what the server says with the page", async () => {
    const answer = await fetch(base, { headers: { "Accept-Encoding": "identity" } });
    const policy = answer.headers.get("content-security-policy") ?? "";
    check("the policy is strict", policy.includes("default-src 'none'") && !policy.includes("unsafe") && policy.includes("frame-ancestors 'none'") ? "" : policy);
    same("no sniffing", answer.headers.get("x-content-type-options"), "nosniff");
    const again = await fetch(base, { headers: { "If-None-Match": answer.headers.get("etag") } });
    same("not modified", again.status, 304);
    const asset = (await answer.text()).match(/assets\/[^"]+\.js/)[0];
    const script = await fetch(base + asset);
    check("assets are kept", (script.headers.get("cache-control") ?? "").includes("immutable") ? "" : script.headers.get("cache-control"));
    same("no such asset", (await fetch(`${base}assets/none.js`)).status, 404);
    same("rooms are for operators", (await fetch(`${base}page/v1/rooms`, { headers: { "X-Auth-Token": tenant } })).status, 403);
    same("and for nobody without a token", (await fetch(`${base}page/v1/rooms`)).status, 401);
    check("an operator", (await ask(base, admin, "GET", "page/v1/rooms")).rooms.length > 3 ? "" : "no rooms");
  });
} finally {
  await browser.close();
  await server.stop();
}
console.log(`${checks} checks, ${failures.length} failed`);
for (const failure of failures) console.log(`FAILED ${failure}`);
process.exit(failures.length > 0 ? 1 : 0);
