// A browser with a watchful eye: everything that goes wrong in a page is written down.
import puppeteer from "puppeteer-core";

export async function launch() {
  return puppeteer.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage", "--lang=en-US"] });
}

/** A page of its own (no shared storage), and what went wrong on it. */
export async function open(browser, { width = 1280, height = 900, theme = "auto", language = "en" } = {}) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.setViewport({ width, height });
  const problems = [];
  const bodies = [];
  const sizes = new Map();
  let expected = [];
  page.on("console", (message) => {
    if (!["error", "warn", "warning"].includes(message.type())) return;
    if (!expected.some((part) => message.text().includes(part))) problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`exception: ${error.stack ?? error}`));
  page.on("requestfailed", (request) => {
    // A question that a newer one has overtaken is given up on purpose.
    if (request.failure()?.errorText !== "net::ERR_ABORTED") problems.push(`failed: ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on("response", (response) => {
    const status = response.status();
    if (status >= 400 && !expected.some((part) => `status of ${status}`.includes(part))) problems.push(`${status}: ${response.url()}`);
    const path = new URL(response.url()).pathname;
    if (path === "/" || path.startsWith("/assets/")) sizes.set(path, Number(response.headers()["content-length"] ?? 0));
    if ((response.headers()["content-type"] ?? "").includes("json") && response.request().method() !== "OPTIONS") {
      const read = response.text().then((text) => ({ url: response.url(), text }));
      bodies.push(read.catch(() => ({ url: response.url(), text: "" })));
    }
  });
  await page.evaluateOnNewDocument(
    (theme, language) => {
      // What this document waits for. A document that is gone takes its count along: the browser's remote control does not
      // always say how the questions of such a one ended.
      window.openQuestions = 0;
      const ask = window.fetch;
      window.fetch = (...parts) => {
        window.openQuestions += 1;
        const asked = ask(...parts);
        const read = asked.then((answer) => answer.clone().arrayBuffer()).catch(() => {});
        read.finally(() => (window.openQuestions -= 1));
        return asked;
      };
      if (!localStorage.getItem("orzo.theme")) localStorage.setItem("orzo.theme", theme);
      if (!localStorage.getItem("orzo.language")) localStorage.setItem("orzo.language", language);
      addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
    },
    theme,
    language,
  );
  return {
    page,
    problems,
    sizes,
    /** Everything that the server has told, as text. */
    told: async () => Promise.all(bodies.splice(0)),
    /** While `action` runs, these parts of problems are expected. */
    expecting: async (parts, action) => {
      expected = parts;
      const result = await action();
      await new Promise((done) => setTimeout(done, 50));
      expected = [];
      return result;
    },
    close: () => context.close(),
  };
}

/** A debug build on a busy machine. */
const SETTLED_MS = 20_000;
/** No question for so long: nothing follows from the last answer. */
const QUIET_MS = 150;
const LOOK_MS = 15;

/** Waits until the view has what it asked for. */
export async function settled(page) {
  const where = async () => `${await page.evaluate(() => location.hash)}: ${await page.$eval("body", (body) => body.innerText.slice(0, 200))}`;
  await page.waitForSelector("h1, form.card");
  const isWaiting = () => !document.querySelector(".waiting") && !document.querySelector(".editor[data-ready='false']");
  await page.waitForFunction(isWaiting, { timeout: SETTLED_MS }).catch(async () => {
    throw new Error(`the view still waits: ${await where()}`);
  });
  const until = Date.now() + SETTLED_MS;
  for (let quiet = 0; quiet < QUIET_MS; ) {
    if (Date.now() > until) throw new Error(`questions without an end: ${await where()}`);
    await new Promise((done) => setTimeout(done, LOOK_MS));
    // Between two documents there is nothing to ask.
    const open = await page.evaluate(() => window.openQuestions).catch(() => 1);
    quiet = open === 0 ? quiet + LOOK_MS : 0;
  }
}

export async function logIn(page, base, user, password) {
  await page.goto(base);
  await page.waitForSelector("input[name=user]");
  await page.type("input[name=user]", user);
  await page.type("input[name=password]", password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#main h1", { timeout: 20_000 });
}

/** What is wrong with the page as it stands. */
export async function faults(page) {
  return page.evaluate(() => {
    const faults = [];
    const root = document.documentElement;
    if (root.scrollWidth > innerWidth) {
      const wide = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1);
      faults.push(`scrolls sideways: ${root.scrollWidth} px of ${innerWidth}; ${wide.slice(0, 3).map((one) => `${one.tagName}.${one.className}`)}`);
    }
    if (!document.querySelector("h1")?.textContent?.trim()) faults.push("no heading");
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const text = node.textContent.trim();
      if (/^(nav|login|who|switch|theme|error|span|chart|table|overview|guests|instance|events|explore|alarms|cardinality|health|missing)\.[a-z]+(\.[a-z]+)*$/.test(text)
        || /\bundefined\b|\bNaN\b|\[object |\{[a-z]+\}/.test(text) && !node.parentElement.closest("code")) faults.push(`strange text: ${text}`);
    }
    for (const failure of document.querySelectorAll(".failure")) faults.push(`failure shown: ${failure.textContent}`);
    for (const one of document.querySelectorAll("button, a[href], select, input")) {
      const name = one.textContent.trim() || one.getAttribute("aria-label") || one.title || one.labels?.[0]?.textContent || "";
      if (!name) faults.push(`a ${one.tagName} without a name: ${one.outerHTML.slice(0, 120)}`);
    }
    return faults;
  });
}
