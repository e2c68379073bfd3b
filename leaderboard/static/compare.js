// Two rows side by side. The numbers are those of `olmes compare`, computed when the page was built.
const SIGNIFICANT = 0.05;

/** Returns {tasks, skills, suites, paired} of candidate minus baseline; pairs that the page does not hold are computed from standard errors. */
async function comparison(a, b) {
  const pairs = (await chunk("pairs")) ?? [];
  for (const pair of pairs) {
    if (pair.a === a && pair.b === b) return { ...pair, paired: true };
    if (pair.a === b && pair.b === a) return { tasks: reversed(pair.tasks), skills: reversed(pair.skills), suites: reversed(pair.suites), paired: true };
  }
  return unpairedComparison(a, b);
}

const reversed = (entries) => Object.fromEntries(Object.entries(entries).map(([key, e]) => [key, e.d === undefined ? e : { ...e, d: -e.d, lo: e.hi === undefined ? undefined : -e.hi, hi: e.lo === undefined ? undefined : -e.lo, w: e.l, l: e.w, tok: e.tok && [e.tok[1], e.tok[0]] }]));

function unpairedComparison(a, b) {
  const differences = {};
  for (const { task } of tasks) {
    const [one, other] = [runs[a].tasks[task], runs[b].tasks[task]];
    if (typeof one?.value !== "number" || typeof other?.value !== "number") continue;
    const parts = differing(task, one, other);
    const published = [runs[a], runs[b]].some((run) => run.kind === "published");
    differences[task] = parts.length ? { differs: parts } : (one.fp === undefined) !== (other.fp === undefined) && !published ? { differs: ["fingerprint"] } : unpaired(one, other);
  }
  const tested = Object.values(differences).filter((e) => e.p !== undefined);
  holm(tested.map((e) => e.p)).forEach((p, i) => { tested[i].holm = p; });
  return { tasks: differences, skills: means(differences, "skill"), suites: means(differences, "suite"), paired: false };
}

/** Computes the parts' mean differences, with errors from those of their tasks. */
function means(differences, key) {
  const parts = {};
  for (const task of tasks) if (differences[task.task]?.d !== undefined) (parts[task[key]] ??= []).push(differences[task.task]);
  return Object.fromEntries(Object.entries(parts).filter(([name]) => name !== "other" || key === "skill").map(([name, entries]) => {
    const out = { d: entries.reduce((sum, e) => sum + e.d, 0) / entries.length, tasks: entries.length, how: "unpaired" };
    if (entries.some((e) => e.se === undefined)) return [name, out];
    const se = Math.hypot(...entries.map((e) => e.se)) / entries.length;
    return [name, { ...out, se, lo: out.d - 1.959964 * se, hi: out.d + 1.959964 * se, p: se ? 2 * (1 - normal(Math.abs(out.d) / se)) : out.d ? 0 : 1 }];
  }));
}

/** Returns "up" or "down" for a significant difference, otherwise "". */
function verdict(e) {
  const p = e.holm ?? e.p;
  return p === undefined || p >= SIGNIFICANT || !e.d ? "" : e.d > 0 ? "up" : "down";
}
const arrow = (e) => ({ up: "▲ ", down: "▼ ", "": "" })[verdict(e)];

async function showCompare([a, b]) {
  const difference = await comparison(a, b);
  const choose = (now, other, key) => el("select", { "aria-label": key, change: (event) => set({ compare: key === "baseline" ? `${event.target.value},${runs[other].run}` : `${runs[other].run},${event.target.value}` }) },
    runs.map((run, at) => (at === other ? null : el("option", { value: run.run, selected: at === now }, [run.model, run.stage, run.apart, run.date].filter(Boolean).join(" · ")))));
  const differs = await setups(a, b);
  const swap = el("button", { type: "button", click: () => set({ compare: `${runs[b].run},${runs[a].run}` }) }, "⇄ Swap");
  const published = [runs[a], runs[b]].some((run) => run.kind === "published");
  const how = published ? "One side is published: its scores come from another evaluation and have no error." : difference.paired ? "Paired over the documents that both rows have, as in `olmes compare`." : "Computed from the two standard errors as if the rows were independent, so intervals are wider than paired ones. `olmes compare` pairs the documents.";
  openPanel(`${runs[b].model} against ${runs[a].model}`, how,
    el("div", { class: "tools" }, "baseline", choose(a, b, "baseline"), "candidate", choose(b, a, "candidate"), swap),
    differs,
    compareTable(difference, a, b),
    el("p", { class: "note" }, el("span", { class: "up" }, "▲ better"), " and ", el("span", { class: "down" }, "▼ worse"), ": p below 0.05 after Holm's adjustment. Without a sign the difference is within its error. “detectable”: the smallest difference that this number of documents detects with 80 % power."),
    scatter(difference), flipSection(a, b, difference));
}

/** Says in which settings two rows differ, and which of them is no measurement of the benchmark. */
async function setups(a, b) {
  const details = (await chunk("details")) ?? [];
  const [one, other] = [details[a]?.facts ?? {}, details[b]?.facts ?? {}];
  const known = Object.keys(one).length && Object.keys(other).length;
  const names = known ? [...new Set([...Object.keys(one), ...Object.keys(other)])].filter((name) => one[name] !== other[name]) : [];
  const same = known && details[a].checkpoint && details[a].checkpoint === details[b].checkpoint;
  const weak = [a, b].filter((at) => runs[at].kind === "mock" || runs[at].sample).map((at) => `${runs[at].model}: ${runs[at].kind === "mock" ? "answers without a model" : "sample documents"}`);
  const list = names.length ? el("dl", { class: "facts" }, names.map((name) => [el("dt", {}, isolated(name)), el("dd", {}, isolated(one[name] ?? "none"), " → ", isolated(other[name] ?? "none"))])) : null;
  if (!same && !list && !weak.length) return null;
  return el("div", { class: "setups" }, weak.length ? el("p", { class: "cut" }, isolated(weak.join("; ")), ". Not a result of the benchmark.") : null,
    same || list ? el("p", { class: "note" }, same ? "One checkpoint. " : "", list ? "Settings that differ:" : "No recorded setting differs.") : null, list);
}

function compareTable(difference, a, b) {
  const told = (task) => difference.tasks[task].tok ?? meanTokens(a, b, task);
  const counted = tasks.some((task) => difference.tasks[task.task] && told(task.task));
  const names = ["task", "Δ", "95 % interval", "baseline", "candidate", ...(counted ? ["tokens per answer"] : []), "p", "p adjusted", "detectable", "improved / worsened", "documents", "suite"];
  const shownScore = (score) => (score === undefined ? "" : points(score));
  const line = (name, e, suite, one, other, tok) => {
    const spent = counted ? el("td", {}, tok ? `${perAnswer(tok[0])} → ${perAnswer(tok[1])}${tok[0] ? ` (${multiple(tok[1] / tok[0])} ×)` : ""}` : "") : null;
    if (e.d === undefined) return el("tr", {}, el("th", { scope: "row" }, name), el("td", { colspan: "2", class: "why" }, e.differs ? `≠ not comparable: ${e.differs.join(" and ")} differ` : e.reason), el("td", {}, shownScore(one)), el("td", {}, shownScore(other)), el("td", { colspan: counted ? 6 : 5 }), el("td", {}, suite));
    return el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: verdict(e) || null }, arrow(e) + signed(e.d)), el("td", {}, span(e.lo, e.hi, true)),
      el("td", {}, shownScore(one)), el("td", {}, shownScore(other)), spent, el("td", {}, pValue(e.p)), el("td", {}, pValue(e.holm)), el("td", {}, points(e.det)), el("td", {}, e.w === undefined || e.how === "unpaired" ? "–" : `${e.w} / ${e.l}`), el("td", {}, e.n ? String(e.n) : "–"), el("td", {}, suite));
  };
  const value = (at, key) => entry(at, key)?.value;
  const rows = [];
  for (const [name, e] of Object.entries(difference.suites)) rows.push(line(`mean of ${e.tasks ?? ""} ${name} tasks`, e, name));
  for (const [name, e] of Object.entries(difference.skills)) rows.push(line(`mean of ${name}`, e, ""));
  for (const task of tasks) if (difference.tasks[task.task]) rows.push(line(task.short, difference.tasks[task.task], task.suite === "other" ? "" : task.suite, value(a, task.task), value(b, task.task), told(task.task)));
  if (!rows.length) return el("p", { class: "empty" }, "The two rows share no task.");
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Differences" }, el("table", { class: "grid compared" }, el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows)));
}

/** Returns the tokens per answer of both rows, each over its own documents; null where either does not count them. */
function meanTokens(a, b, task) {
  const [one, other] = [a, b].map((at) => runs[at].tasks[task]?.tokens);
  return one && other ? [one[0] + one[1], other[0] + other[1]] : null;
}

/** Draws gain on dev against gain on unseen, by skill: gains on the dev tasks alone are below the diagonal. */
function scatter(difference) {
  const dots = [];
  for (const skill of new Set(tasks.map((task) => task.skill))) {
    const gain = (suite) => {
      const entries = tasks.filter((task) => task.skill === skill && task.suite === suite).map((task) => difference.tasks[task.task]).filter((e) => e?.d !== undefined);
      return entries.length ? { d: entries.reduce((sum, e) => sum + e.d, 0) / entries.length, se: Math.hypot(...entries.map((e) => e.se ?? 0)) / entries.length } : null;
    };
    const [dev, unseen] = [gain("dev"), gain("unseen")];
    if (dev && unseen) dots.push({ name: skill, x: dev.d, y: unseen.d, sx: dev.se, sy: unseen.se });
  }
  if (!dots.length) return null;
  return el("section", {}, el("h3", {}, "Gain on dev against gain on unseen"), drawScatter(dots),
    el("p", { class: "note" }, "Bars: 95 % intervals. On the diagonal a skill gained as much on unseen tasks as on dev tasks; far below it, the gain is limited to the dev tasks."));
}

function flipSection(a, b, difference) {
  const having = tasks.filter((task, i) => difference.tasks[task.task]?.d !== undefined && hasDocuments(a, i) && hasDocuments(b, i));
  if (!having.length) return el("p", { class: "empty" }, data.instances === "none" ? "The page contains no documents (--instances none)." : "The page contains no documents of both rows.");
  const list = el("div", {});
  const draw = async (task) => {
    list.replaceChildren(el("p", { class: "empty" }, "Unpacking …"));
    list.replaceChildren(await flipTable(a, b, task));
  };
  const select = el("select", { id: "flip-task", change: () => draw(select.value) }, having.map((task) => el("option", { value: task.task }, task.short)));
  draw(having[0].task);
  return el("section", {}, el("h3", {}, "Flipped documents"), el("div", { class: "tools" }, el("label", { for: "flip-task" }, "task"), select,
    el("button", { type: "button", click: () => { documentChoice.against = a; documentChoice.verdict = "flipped"; set({ open: `${runs[b].run}/${select.value}`, compare: "" }); } }, "Read them with their prompts")), list);
}

async function flipTable(a, b, task) {
  const column = taskAt.get(task);
  const [before, after] = await Promise.all([a, b].map((at) => chunk(`c${at}-${column}`)));
  const old = new Map(before.docs.map((doc) => [before.leaves[doc[0]] + "\n" + doc[1], doc]));
  const flips = after.docs.map((doc) => [doc, old.get(after.leaves[doc[0]] + "\n" + doc[1])]).filter(([doc, was]) => was && was[2] !== doc[2]).sort((x, y) => Math.abs(y[0][2] - y[1][2]) - Math.abs(x[0][2] - x[1][2]));
  if (!flips.length) return el("p", { class: "empty" }, "No document changed its score.");
  const cut = (text) => isolated(text === null || text === undefined ? "–" : text.length > 80 ? text.slice(0, 80) + "…" : text);
  const row = ([doc, was]) => el("tr", {}, el("td", {}, isolated(shortPlace(after.leaves[doc[0]], doc[1]))), el("td", { class: doc[2] > was[2] ? "up" : "down" }, `${doc[2] > was[2] ? "▲" : "▼"} ${points(was[2], 0)} → ${points(doc[2], 0)}`), el("td", {}, cut(was[3])), el("td", {}, cut(doc[3])));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Flipped documents" }, el("p", { class: "note" }, `${flips.length} documents${flips.length > 200 ? ", the first 200 shown" : ""}`),
    el("table", { class: "grid" }, el("thead", {}, el("tr", {}, ["document", "score", "answer before", "answer after"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, flips.slice(0, 200).map(row))));
}
