// The table: sorting, filtering, columns, rank intervals, and marks that depend on the row above.
const head = board.tHead.rows[1];
const cellsOf = rowOf.map((row) => new Map([...row.cells].filter((cell) => cell.dataset.task).map((cell) => [cell.dataset.task, cell])));
const differs = rowOf.map((_, at) => new Map([...cellsOf[at]].map(([task, cell]) => [task, (cell.dataset.flags.match(/(?:^| )differs:(\S+)/) ?? ["", ""])[1]])));
let order = runs.map((_, at) => at);

const measuredKind = (run) => run.kind === "measured" || run.kind === "imported";
const COSTS = board.querySelector("th.cost") ? ["cost:tokens", "cost:limit"] : [];
const entry = (at, key) => (key.startsWith("suite:") ? runs[at].suites[key.slice(6)] : COSTS.includes(key) ? { value: runs[at].cost?.[key.slice(5)] } : runs[at].tasks[key]);
const known = (key) => taskAt.has(key) || COSTS.includes(key) || (key.startsWith("suite:") && data.suites.includes(key.slice(6)));

/** Returns [key, direction] of the current sort; key "" is the order of lineages. */
function sorting() {
  const match = state.sort.match(/^(-?)(.*?)(?::(asc|desc))?$/s);
  let key = match[2];
  for (const other of ["tulu3_" + key, "suite:" + key, "cost:" + key]) if (!known(key) && known(other)) key = other;
  if (key !== "model" && !known(key)) return ["", "desc"];
  return [key, match[3] ?? (match[1] ? "desc" : key === "model" ? "asc" : "desc")];
}

function sorted() {
  const shown = runs.map((_, at) => at).filter((at) => meets(runs[at], state.filter));
  const [key, direction] = sorting();
  if (!key) return shown;
  const sign = direction === "asc" ? 1 : -1;
  if (key === "model") return shown.sort((a, b) => sign * runs[a].model.localeCompare(runs[b].model) || a - b);
  const value = (at) => entry(at, key)?.value ?? null;
  return shown.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return sign * (x - y) || a - b;
  });
}

/** Chooses the column of the ranks: the sorted one, otherwise the first average, or task, that two rows have. */
function rankKey() {
  const key = sorting()[0];
  if (key && key !== "model" && !COSTS.includes(key)) return key;
  const keys = [...data.suites.map((name) => "suite:" + name), ...tasks.map((task) => task.task)];
  const count = (key) => runs.filter((run, at) => measuredKind(run) && typeof entry(at, key)?.value === "number").length;
  return keys.find((key) => count(key) > 1) ?? "";
}

/** Ranks the largest group of comparable scores; scores that are not comparable share no ranks. */
function drawRanks() {
  const key = rankKey();
  const ranked = order.filter((at) => measuredKind(runs[at]) && typeof entry(at, key)?.value === "number");
  const groups = grouped(ranked, key);
  const largest = [...groups.values()].sort((a, b) => b.length - a.length)[0] ?? [];
  const intervals = ranks(largest.map((at) => entry(at, key)));
  const text = new Map(largest.map((at, i) => [at, intervals[i][0] === intervals[i][1] ? String(intervals[i][0]) : intervals[i].join("–")]));
  for (const at of order) {
    const cell = rowOf[at].querySelector("td.rank");
    const rank = text.get(at) ?? (ranked.includes(at) ? "≠" : "");
    if (cell.textContent !== rank) cell.textContent = rank;
  }
  const name = key.startsWith("suite:") ? key.slice(6) : tasks[taskAt.get(key)]?.short ?? "";
  head.querySelector("th.rank").replaceChildren("rank", el("br"), el("small", {}, name ? "by " + name : ""));
}

function grouped(ranked, key) {
  const out = new Map();
  for (const at of ranked) out.set(identity(at, key), [...(out.get(identity(at, key)) ?? []), at]);
  return out;
}

/** Returns a value that is equal for two scores of a column if they may share ranks. */
function identity(at, key) {
  if (!key.startsWith("suite:")) return String(entry(at, key).fp ?? runs[at].kind);
  return tasks.filter((t) => t.suite === key.slice(6)).map((t) => runs[at].tasks[t.task]?.fp ?? "").join(" ");
}

function drawRows() {
  order = sorted();
  const shown = new Set(order);
  const arranged = [...order, ...[...runs.keys()].filter((at) => !shown.has(at))];
  const now = [...body.rows];
  if (arranged.some((at, i) => now[i] !== rowOf[at])) body.append(...arranged.map((at) => rowOf[at]));
  rowOf.forEach((row, at) => { row.hidden = !shown.has(at); });
  order.slice(0, FIRST).forEach(equipRow);
  const byLineage = !sorting()[0];
  order.forEach((at, i) => rowOf[at].classList.toggle("first", byLineage && i > 0 && group(order[i - 1]) !== group(at)));
  drawDiffers();
  drawRanks();
  document.getElementById("status").textContent = order.length === runs.length ? rowCount(runs.length) : `${order.length} of ${rowCount(runs.length)}`;
}

const rowCount = (n) => `${n} row${n === 1 ? "" : "s"}`;
const group = (at) => runs[at].kind + "\n" + runs[at].lineage;

/** Draws the mark "not comparable with the row above" for the current order of the rows. */
function drawDiffers() {
  for (const { task } of tasks) {
    let above = null;
    for (const at of order) {
      const result = runs[at].tasks[task];
      if (!result || result.value === undefined) continue;
      const parts = differing(task, above, result).join("+");
      if (parts !== differs[at].get(task)) remark(at, task, parts);
      if (result.fp !== undefined) above = result;
    }
  }
}

function remark(at, task, parts) {
  const cell = cellsOf[at].get(task);
  differs[at].set(task, parts);
  cell.dataset.flags = [parts && "differs:" + parts, ...cell.dataset.flags.split(" ").filter((flag) => flag && !flag.startsWith("differs:"))].filter(Boolean).join(" ");
  equipRow(at);
  const button = cell.firstElementChild;
  button.removeAttribute("title");
  const others = (button.querySelector("b")?.textContent ?? "").replace("≠", "");
  button.querySelector("b")?.remove();
  if (parts || others) button.append(el("b", { "aria-hidden": "true" }, (parts ? "≠" : "") + others));
}

/** Describes the marks of a cell in words. */
function marksOf(at, task) {
  const [run, result] = [runs[at], runs[at].tasks[task]];
  const out = [];
  if (result.error) out.push("failed: " + result.error);
  const parts = differs[at].get(task);
  if (parts) out.push(`not comparable with the row above: ${parts.split("+").join(" and ")} differ`);
  if (result.clean) out.push(`${result.clean.flagged} of ${result.n} documents are in the training data; without them ${points(result.clean.value)} (${span(result.clean.lo, result.clean.hi)})`);
  for (const [flag, count] of Object.entries(result.flags ?? {})) out.push(`${count}${result.n ? " of " + result.n : ""}: ${data.troubles[flag] ?? flag}`);
  if (result.judge) out.push("scored by a judge or classifier model");
  if (result.of) out.push(`${result.n} of ${result.of} documents${result.part === "planned" ? ", those of a plan" : ""}`);
  if (result.stopped) out.push(`stopped early: ${result.stopped}`);
  if (result.projected) out.push(`projected from ${result.projected.from} on all ${result.projected.of} documents: ${points(result.projected.value)} (${span(result.projected.lo, result.projected.hi)})`);
  if (result.floor !== undefined) out.push(result.value <= result.floor ? `not above the floor: a constant answer scores ${points(result.floor)}` : `floor ${points(result.floor)}`);
  if (tasks[taskAt.get(task)].suite === "unseen" && run.looks) out.push(`the lineage has looked at the unseen suite ${run.looks} time${run.looks > 1 ? "s" : ""}`);
  if (run.kind === "imported") out.push("imported: scored elsewhere");
  if (result.note) out.push(result.note);
  return out;
}

/** Describes what the answers of a cell took and how they ended, in words. */
function costOf(result) {
  const out = [];
  if (result.tokens) out.push(`${count(result.tokens[0] + result.tokens[1])} tokens per answer${result.tokens[0] ? `, ${count(result.tokens[0])} of them thought` : ""}`);
  const ended = result.answers;
  if (ended) {
    const share = (n) => `${((100 * n) / ended.n).toFixed(1)} %`;
    if (ended.length) out.push(`${share(ended.length)} of ${count(ended.n)} answers ended at the token limit; the score over the others is ${points(result.done?.value)}`);
    if (ended.unclosed) out.push(`${share(ended.unclosed)} of the answers ended inside a thought`);
  }
  if (result.rate !== undefined) out.push(`${count(result.rate)} correct answers per million tokens`);
  if (result.samples) out.push(`${result.samples} samples of each document${result.sd === undefined ? "" : `; run-to-run s.d. ${points(result.sd)} points`}`);
  return out;
}

/** Sets the title of a cell's button when it first gets the pointer or the focus. */
function describe(button) {
  if (!button || button.title) return;
  const [at, task] = [Number(button.closest("tr").dataset.at), button.parentElement.dataset.task];
  const result = runs[at].tasks[task];
  const score = result.value === undefined ? "no score" : `${points(result.value)} ${half(result.lo, result.hi)}`;
  const description = [`${tasks[taskAt.get(task)].short}, ${runs[at].model}: ${score}`, ...marksOf(at, task), ...costOf(result)].join("\n");
  button.title = description;
}

/** Makes the static table interactive: buttons in the header and the cells, boxes to pick rows. */
function equip() {
  for (const cell of head.cells) {
    const key = cell.dataset.sort;
    if (!key || key === "rank") continue;
    const suite = cell.dataset.suite;
    cell.replaceChildren(el("button", { type: "button", click: () => sortBy(key) }, cell.textContent, suite && suite !== "other" ? el("small", {}, suite) : null));
  }
  for (const at of runs.keys()) if (at < FIRST) equipRow(at);
  body.addEventListener("click", (event) => {
    const cell = event.target.closest("button.cell")?.parentElement;
    if (cell) set({ open: runs[cell.parentElement.dataset.at].run + "/" + cell.dataset.task, compare: "" });
  });
  body.addEventListener("keydown", moveInTable);
  body.addEventListener("focusin", (event) => roam(event.target.closest("button.cell")));
  for (const kind of ["pointerover", "focusin"]) body.addEventListener(kind, (event) => describe(event.target.closest("button.cell")));
}

let roaming = null;
const FIRST = 40; // rows that become interactive before the first paint; the others follow when the browser has time
const ready = new Set();

/** Adds the box and the buttons of one row. */
function equipRow(at) {
  if (ready.has(at)) return;
  ready.add(at);
  const row = rowOf[at];
  const title = row.cells[0].querySelector(".who bdi");
  row.cells[0].prepend(el("input", { type: "checkbox", class: "pick", "aria-label": "compare " + runs[at].model, change: picked }));
  const opener = el("button", { type: "button", class: "link", title: runs[at].runs.join("\n") || runs[at].source, click: () => set({ open: runs[at].run, compare: "" }) });
  title.replaceWith(opener);
  opener.append(title);
  for (const cell of cellsOf[at].values()) {
    const button = el("button", { type: "button", class: "cell", tabindex: "-1" });
    button.append(...cell.childNodes);
    button.querySelector("b")?.setAttribute("aria-hidden", "true"); // the title describes it in words
    cell.append(button);
  }
  if (!roaming) roam(row.querySelector("button.cell"));
}

/** Equips the other rows, some at a time. */
function equipRest() {
  const next = [...runs.keys()].filter((at) => !ready.has(at)).slice(0, 15);
  next.forEach(equipRow);
  if (next.length) setTimeout(equipRest);
}

/** Lets Tab reach one cell, from which the arrow keys reach the others. */
function roam(button) {
  if (!button || button === roaming) return;
  if (roaming) roaming.tabIndex = -1;
  roaming = button;
  button.tabIndex = 0;
}

function moveInTable(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const button = event.target.closest("button.cell");
  if (!step || !button) return;
  event.preventDefault();
  let row = button.closest("tr");
  let column = button.parentElement.cellIndex;
  for (;;) {
    if (step[0]) row = step[0] > 0 ? row.nextElementSibling : row.previousElementSibling;
    else column += step[1];
    const cell = row?.cells[column];
    if (!cell || column < 2) return;
    const target = !row.hidden && !cell.hidden && cell.querySelector("button.cell");
    if (target) { target.focus(); target.scrollIntoView({ block: "nearest", inline: "nearest" }); return; }
  }
}

/** Sorts by a column. First click: best first; second: worst first; third: the order of lineages. */
function sortBy(key) {
  const [now, direction] = sorting();
  const first = key === "model" ? "asc" : "desc";
  const second = first === "asc" ? "desc" : "asc";
  set({ sort: now !== key ? `${key}:${first}` : direction === first ? `${key}:${second}` : "" });
}

function drawHead() {
  const [key, direction] = sorting();
  for (const cell of head.cells) {
    if (cell.dataset.sort !== "rank") cell.setAttribute("aria-sort", cell.dataset.sort === key ? (direction === "asc" ? "ascending" : "descending") : "none");
  }
}

const hiddenColumns = () => new Set(state.columns.split(",").filter(Boolean));

function drawColumns() {
  const hidden = hiddenColumns();
  const start = 2 + data.suites.length + COSTS.length;
  const flags = tasks.map((task) => hidden.has(task.short));
  if (drawColumns.last === flags.join()) return;
  drawColumns.last = flags.join();
  for (const row of [head, ...rowOf]) flags.forEach((hide, i) => { row.cells[start + i].hidden = hide; });
  for (const cell of board.tHead.rows[0].querySelectorAll("[data-skill]")) {
    const wide = tasks.filter((task, i) => task.skill === cell.dataset.skill && !flags[i]).length;
    cell.hidden = !wide;
    if (wide) cell.colSpan = wide;
  }
}

const boxes = () => [...body.querySelectorAll(".pick:checked")];

function picked(event) {
  const chosen = boxes();
  if (chosen.length > 2) chosen.find((box) => box !== event.target).checked = false;
  const two = boxes().map((box) => Number(box.closest("tr").dataset.at));
  const button = document.getElementById("compare");
  button.disabled = two.length !== 2;
  button.textContent = two.length === 2 ? "Compare" : two.length === 1 ? "Compare (pick one more)" : "Compare (pick two rows)";
  drawViews();
}
