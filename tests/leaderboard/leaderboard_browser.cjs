// Drives the page in chromium and prints what it saw as JSON. Usage: node leaderboard_browser.cjs CHROMIUM SCENE PAGE [SHOTS]
// playwright-core and axe-core are found through NODE_PATH.
const { chromium } = require("playwright-core");
const [, , executablePath, scene, file, shots] = process.argv;

const rows = (page) => page.$$eval("#board tbody tr", (all) => all.filter((row) => !row.hidden).map((row) => row.dataset.run));
const values = (page, task) => page.$$eval("#board tbody tr", (all, task) => all.filter((row) => !row.hidden).map((row) => row.querySelector(`td[data-task="${task}"]`)?.dataset.value ?? ""), task);
const title = (page) => page.$eval("#panel-title", (heading) => heading.textContent);

async function fresh(page, hash = "") {
  await page.goto("about:blank");
  await page.goto("file://" + file + hash);
  await page.waitForSelector("html[data-ready]");
}

const scenes = {
  async use(page) {
    const seen = {};
    await fresh(page);
    seen.start = await rows(page);
    const head = (task) => page.locator(`#board th[data-sort="${task}"] button`);
    await head("tulu3_gsm8k").click();
    seen.down = await values(page, "tulu3_gsm8k");
    seen.ariaDown = await page.getAttribute('#board th[data-sort="tulu3_gsm8k"]', "aria-sort");
    await head("tulu3_gsm8k").click();
    seen.up = await values(page, "tulu3_gsm8k");
    seen.ariaUp = await page.getAttribute('#board th[data-sort="tulu3_gsm8k"]', "aria-sort");
    await page.fill("#filter", "stage:rlvr 300");
    seen.filtered = await rows(page);
    seen.hash = await page.evaluate(() => location.hash);
    await fresh(page, seen.hash);
    seen.restored = await rows(page);
    seen.restoredFilter = await page.inputValue("#filter");
    return seen;
  },
  async documents(page) {
    const seen = {};
    await fresh(page);
    await page.click('tr[data-run^="llama-dpo"] td[data-task="tulu3_gsm8k"] button');
    await page.waitForSelector(".list button");
    seen.title = await title(page);
    seen.hash = decodeURIComponent(await page.evaluate(() => location.hash));
    seen.count = await page.textContent(".panel .tools .note");
    await page.selectOption('select[aria-label="Verdict"]', "wrong");
    seen.wrong = await page.$$eval(".list .verdict", (all) => [...new Set(all.map((one) => one.textContent))]);
    await page.selectOption('select[aria-label="Verdict"]', "all");
    await page.selectOption('select[aria-label="Compare with"]', { index: 1 });
    await page.waitForSelector(".two");
    seen.diff = (await page.$$("ins, del")).length > 0;
    await page.fill('input[aria-label="Search documents"]', "no such words anywhere");
    seen.none = await page.textContent(".panel .tools .note");
    await page.keyboard.press("Escape"); // empties the search
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.getElementById("panel").open);
    seen.closed = await page.evaluate(() => location.hash);
    await fresh(page, "#" + seen.hash.slice(1));
    await page.waitForSelector(".list button");
    seen.again = await title(page);
    return seen;
  },
  async tokens(page) {
    const seen = {};
    await fresh(page);
    const shot = async (name) => { if (shots) await page.screenshot({ path: shots.replace(/\.png$/, `-${name}.png`), fullPage: name !== "drill" }); };
    await page.waitForSelector("#tokens-view circle");
    await shot("tokens");
    const column = (name) => page.$$eval(`#board td.cost[data-cost="${name}"]`, (all) => all.filter((cell) => !cell.parentElement.hidden).map((cell) => cell.textContent));
    seen.tokens = await column("tokens");
    seen.limit = await column("limit");
    seen.dots = (await page.$$("#tokens-view circle")).length;
    await page.click('#board th[data-sort="cost:tokens"] button');
    seen.sorted = await column("tokens");
    await page.fill("#filter", "model:long");
    seen.filtered = await page.$$eval("#tokens-view circle title", (all) => all.map((one) => one.textContent));
    await page.selectOption("#tokens-view select", "tulu3_gsm8k");
    seen.chosen = await page.$eval("#tokens-view svg", (one) => one.getAttribute("aria-label"));
    await page.fill("#filter", "");
    await fresh(page, "#open=long-dev-00000002/tulu3_gsm8k");
    await page.waitForSelector(".thought");
    seen.cost = await page.$$eval(".panel .body > .note", (all) => all.map((one) => one.textContent));
    seen.closed = await page.$eval(".thought", (one) => !one.open);
    await page.selectOption('select[aria-label="Verdict"]', "truncated");
    seen.summary = await page.textContent(".thought summary");
    await page.click(".thought summary");
    seen.cut = await page.textContent(".thought .cut");
    seen.thought = await page.textContent(".thought .text");
    seen.rest = await page.textContent(".answer > .text");
    await shot("drill");
    await fresh(page, "#compare=short-dev-00000000,long-dev-00000002");
    await page.waitForSelector(".grid tbody tr");
    seen.compared = await page.$eval(".panel .grid", (table) => [...table.tBodies[0].rows].map((row) => row.cells[5].textContent));
    await shot("compared");
    return seen;
  },
  async compare(page) {
    const seen = {};
    await fresh(page);
    await page.check('tr[data-run^="llama-dpo"] .pick');
    await page.check('tr[data-run^="llama-rlvr-300"] .pick');
    await page.click("#compare");
    await page.waitForSelector(".grid tbody tr");
    seen.title = await title(page);
    seen.hash = decodeURIComponent(await page.evaluate(() => location.hash));
    seen.rows = await page.$$eval(".panel .grid:first-of-type tbody tr", (all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
    seen.scatter = (await page.$$(".panel svg circle")).length;
    await page.waitForSelector("#flip-task");
    seen.flips = (await page.$$(".panel section:last-of-type .grid tbody tr")).length;
    seen.differs = await page.textContent(".setups");
    await page.keyboard.press("Escape");
    seen.marked = await page.$$eval("#board tr[data-pick]", (all) => all.map((row) => row.dataset.pick));
    await page.uncheck('tr[data-run^="llama-dpo"] .pick');
    await page.check('tr[data-run^="llama-dpo"] .pick');
    await page.click("#compare");
    await page.waitForSelector(".grid tbody tr");
    seen.reversed = decodeURIComponent(await page.evaluate(() => location.hash));
    return seen;
  },
  async words(page) {
    const seen = {};
    await fresh(page);
    const tip = () => page.$eval("#tip", (one) => (one.hidden ? "" : one.textContent));
    await page.focus('#board button.cell[tabindex="0"]');
    seen.focused = await tip();
    await page.hover('tr[data-run^="llama-rlvr-300"] td.average[data-suite="dev"]');
    seen.average = await tip();
    await page.hover('tr[data-run^="llama-sft-math"] td[data-task="tulu3_gsm8k"]');
    seen.marked = await tip();
    await page.keyboard.press("Escape");
    seen.left = (await tip()) === "";
    await page.waitForSelector("#views circle");
    seen.bounds = (await page.$$eval("#views circle title", (all) => all.map((one) => one.textContent))).some((text) => /\(\d+\.\d–\d+\.\d\)/.test(text));
    await page.click('tr[data-run^="llama-sft-math"] td[data-task="tulu3_gsm8k"] button');
    await page.waitForSelector(".marks li");
    seen.tapped = (await page.textContent(".marks")).includes("documents are in the training data");
    return seen;
  },
  async filters(page) {
    const seen = {};
    await fresh(page);
    const columns = () => page.$$eval("#board .names th[data-col]", (all) => all.filter((one) => !one.hidden).length);
    const filtered = async (text) => { await page.fill("#filter", text); return rows(page); };
    seen.start = await columns();
    await filtered("no such row");
    seen.nothing = await page.textContent("td.nothing");
    await page.click("td.nothing button");
    seen.cleared = (await rows(page)).length;
    await page.click("#status button");
    seen.all = await columns();
    await page.click("#status button");
    seen.devRows = await filtered("rlvr-100");
    seen.dev = await columns();
    seen.limited = await filtered("limit:60");
    seen.covered = await filtered("coverage:100 backend:hf");
    seen.backend = await filtered("backend:hf");
    seen.task = await filtered("task:agieval backend:hf");
    return seen;
  },
  async look(page) {
    const seen = {};
    await fresh(page);
    const cell = 'tr[data-run^="llama-rlvr-300"] td[data-task="tulu3_ifeval"]';
    const colour = () => page.$eval(cell, (one) => getComputedStyle(one).backgroundColor);
    const height = () => page.$eval('tr[data-run^="llama-rlvr-300"]', (one) => one.offsetHeight);
    seen.highest = await page.$eval(cell, (one) => one.dataset.heat);
    seen.lowest = await page.$eval('tr[data-run^="llama-base"] td[data-task="tulu3_ifeval"]', (one) => one.dataset.heat);
    seen.coloured = await colour();
    seen.usual = await height();
    await fresh(page, "#compact=on&colours=off");
    seen.plain = await colour();
    seen.compact = await height();
    return seen;
  },
  async narrow(page) {
    const seen = {};
    await page.setViewportSize({ width: 390, height: 844 });
    await fresh(page, "#compare=llama-dpo-dev-00000003,llama-rlvr-300-dev-00000006");
    await page.waitForSelector(".grid tbody td");
    seen.difference = await page.$eval(".grid tbody td", (one) => one.getBoundingClientRect().right);
    seen.wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth + 1);
    await page.setViewportSize({ width: 1047, height: 720 }); // A4, landscape, without its margins
    await fresh(page);
    await page.emulateMedia({ media: "print" });
    await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
    seen.printed = await page.$eval("#board", (one) => one.getBoundingClientRect().right);
    seen.paper = 1048;
    seen.legend = await page.$eval("#legend", (one) => one.open);
    return seen;
  },
  async question(page) {
    const seen = {};
    await fresh(page);
    seen.ranks = await page.$$eval("#board tbody td.rank", (all) => all.map((one) => one.textContent));
    seen.tags = await page.$$eval("#board .tag.kind", (all) => all.map((one) => one.textContent));
    await page.click('td[data-task="tulu3_gsm8k"] button');
    await page.waitForSelector(".doc .text");
    seen.parts = await page.$$eval(".doc h3", (all) => all.map((one) => one.textContent));
    seen.question = await page.textContent(".doc .text");
    seen.folded = await page.$$eval(".doc details:not([open]) summary", (all) => all.map((one) => one.textContent));
    await page.keyboard.press("Escape");
    await page.click('td[data-task^="tulu3_mmlu"] button');
    await page.waitForSelector(".doc .text");
    seen.reference = (await page.$$eval(".doc > .text", (all) => all.map((one) => one.textContent))).at(-1);
    return seen;
  },
  async steps(page) {
    await fresh(page);
    await page.waitForSelector("#views svg[aria-label*='line for each training']");
    const chart = "#views svg[aria-label*='line for each training']";
    return {
      lines: await page.$$eval(`${chart} path[fill=none]`, (all) => all.map((one) => one.getAttribute("d").split("L").length)),
      titles: await page.$$eval(`${chart} circle title`, (all) => all.map((one) => one.textContent)),
    };
  },
  async keyboard(page) {
    const seen = {};
    await fresh(page);
    await page.focus('#board button.cell[tabindex="0"]');
    const where = () => page.evaluate(() => document.activeElement.closest("td")?.dataset.task + " " + document.activeElement.closest("tr")?.dataset.at);
    seen.from = await where();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowRight");
    seen.to = await where();
    await page.keyboard.press("Enter");
    await page.waitForSelector("#panel[open] .list button");
    seen.focused = await page.evaluate(() => document.activeElement.textContent);
    await page.focus(".list");
    await page.keyboard.press("ArrowDown");
    seen.second = await page.$eval('.list button[aria-current="true"] bdi', (one) => one.textContent);
    await page.keyboard.press("Escape");
    await page.focus('#board th[data-sort="model"] button');
    await page.keyboard.press("Enter");
    seen.sorted = await page.getAttribute('#board th[data-sort="model"]', "aria-sort");
    seen.tabStops = await page.$$eval("#board button.cell", (all) => all.filter((one) => one.tabIndex === 0).length);
    return seen;
  },
  async theme(page) {
    const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const seen = {};
    await fresh(page);
    seen.light = await colour();
    await page.click("#theme");
    seen.dark = await colour();
    await page.emulateMedia({ colorScheme: "dark" });
    await page.evaluate(() => localStorage.clear());
    await fresh(page);
    seen.system = await colour();
    return seen;
  },
  async axe(page) {
    const seen = [];
    const source = require("fs").readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
    const check = async (name) => {
      const found = await page.evaluate(async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map((v) => ({ id: v.id, impact: v.impact, nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)) })));
      for (const one of found) if (["serious", "critical"].includes(one.impact)) seen.push({ name, ...one });
    };
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      await fresh(page);
      await page.evaluate(source);
      await page.waitForTimeout(400);
      await check(scheme + " table");
      const [one, other] = (await rows(page)).some((run) => run.startsWith("llama")) ? ["llama-dpo", "llama-rlvr-300"] : ["long", "short"];
      await page.click(`tr[data-run^="${one}"] td[data-task="tulu3_gsm8k"] button`);
      await page.waitForSelector(".list button");
      await check(scheme + " documents");
      await page.keyboard.press("Escape");
      await page.check(`tr[data-run^="${one}"] .pick`);
      await page.check(`tr[data-run^="${other}"] .pick`);
      await page.click("#compare");
      await page.waitForSelector("#flip-task");
      await check(scheme + " compare");
      await page.keyboard.press("Escape");
      await page.click(`tr[data-run^="${one}"] th button`);
      await page.waitForSelector(".facts");
      await check(scheme + " row");
    }
    return seen;
  },
  async hostile(page) {
    const seen = {};
    await fresh(page);
    await page.waitForTimeout(300);
    for (const button of await page.$$("#board button.cell")) {
      await button.click();
      await page.waitForSelector("#panel[open] .body");
      await page.waitForTimeout(100);
      await page.keyboard.press("Escape");
    }
    for (const button of await page.$$("#board tbody th button")) {
      await button.click();
      await page.waitForSelector("#panel[open] .facts");
      await page.keyboard.press("Escape");
    }
    seen.ran = await page.evaluate(() => window.ran ?? null);
    seen.elements = await page.$$eval("img, iframe, object, embed, form, base, meta[http-equiv=refresh], script[src], link", (all) => all.map((one) => one.outerHTML.slice(0, 80)));
    seen.scripts = await page.$$eval("script:not([type])", (all) => all.length);
    seen.wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth + 1);
    return seen;
  },
  async plain(page) {
    return {
      rows: await page.$$eval("#board tbody tr", (all) => all.length).catch(() => null),
      text: await page.locator('tr[data-run^="llama-base"] td[data-task="tulu3_gsm8k"]').innerText(),
    };
  },
  async downloads(page) {
    const seen = {};
    await fresh(page, "#filter=stage:rlvr");
    for (const kind of ["CSV", "JSON", "Markdown", "LaTeX"]) {
      await page.click('.menu > button:has-text("Download")');
      const [download] = await Promise.all([page.waitForEvent("download"), page.click(`.menu button:text-is("${kind}")`)]);
      seen[kind] = require("fs").readFileSync(await download.path(), "utf8");
    }
    return seen;
  },
  async speed(page) {
    const seen = {};
    await page.goto("about:blank");
    await page.goto("file://" + file, { waitUntil: "commit" });
    await page.waitForSelector("html[data-ready]");
    seen.ready = Number(await page.getAttribute("html", "data-ready"));
    await page.waitForLoadState("load");
    const paint = await page.evaluate(() => performance.getEntriesByType("paint").map((one) => [one.name, one.startTime]));
    Object.assign(seen, Object.fromEntries(paint), await page.evaluate(() => ({ interactive: performance.getEntriesByType("navigation")[0].domInteractive })));
    const time = (go) => page.evaluate(go);
    seen.cell = await time(async () => {
      const start = performance.now();
      document.querySelector("#board td[data-task] button.cell").click();
      while (!document.querySelector("#panel[open] .list button, #panel[open] .empty")) await new Promise((done) => setTimeout(done, 2));
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      return performance.now() - start;
    });
    await page.keyboard.press("Escape");
    seen.sort = await time(async () => {
      const start = performance.now();
      document.querySelector("#board th[data-col] button").click();
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      return performance.now() - start;
    });
    seen.frames = await time(async () => {
      const frame = document.querySelector(".frame");
      const gaps = [];
      let last = performance.now();
      for (let i = 0; i < 60; i++) { frame.scrollTop += 40; await new Promise(requestAnimationFrame); const now = performance.now(); gaps.push(now - last); last = now; }
      return gaps.sort((a, b) => a - b)[57];
    });
    return seen;
  },
};

(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const context = await browser.newContext({ viewport: { width: 1440, height: 950 }, colorScheme: "light", javaScriptEnabled: scene !== "plain", bypassCSP: scene === "axe" });
    const page = await context.newPage();
    page.setDefaultTimeout(20000);
    const errors = [];
    const requests = [];
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
    page.on("dialog", (dialog) => { errors.push("dialog"); dialog.dismiss(); });
    page.on("request", (request) => { if (!/^(file|blob|about):/.test(request.url())) requests.push(request.url()); });
    if (scene === "plain") await page.goto("file://" + file);
    const seen = await scenes[scene](page);
    if (shots) await page.screenshot({ path: shots });
    console.log(JSON.stringify({ seen, errors, requests }));
  } finally {
    await browser.close();
  }
})().catch((error) => { console.error(error); process.exit(1); });
