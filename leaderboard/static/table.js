// The table: sorting, filtering, columns, rank intervals, and marks that depend on the row above.
const head = board.tHead.rows[1];
const cellsOf = rowOf.map((row) => new Map([...row.cells].filter((cell) => cell.dataset.task).map((cell) => [cell.dataset.task, cell])));
const differs = rowOf.map((_, at) => new Map([...cellsOf[at]].map(([task, cell]) => [task, (cell.dataset.flags.match(/(?:^| )differs:(\S+)/) ?? ["", ""])[1]])));
let order = runs.map((_, at) => at);

const measuredKind = (run) => run.kind === "measured" || run.kind === "imported";
const ranked = (run) => measuredKind(run) && !run.sample; // made-up answers and sample documents never are
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
  const count = (key) => runs.filter((run, at) => ranked(run) && typeof entry(at, key)?.value === "number").length;
  return keys.find((key) => count(key) > 1) ?? "";
}

/** Ranks the largest group of comparable scores; scores that are not comparable share no ranks. */
function drawRanks() {
  const key = rankKey();
  const having = order.filter((at) => ranked(runs[at]) && typeof entry(at, key)?.value === "number");
  const groups = grouped(having, key);
  const largest = [...groups.values()].sort((a, b) => b.length - a.length)[0] ?? [];
  const intervals = ranks(largest.map((at) => entry(at, key)));
  const text = new Map(largest.map((at, i) => [at, intervals[i][0] === intervals[i][1] ? String(intervals[i][0]) : intervals[i].join("–")]));
  for (const at of order) {
    const cell = rowOf[at].querySelector("td.rank");
    const rank = text.get(at) ?? (having.includes(at) ? "≠" : "");
    if (cell.textContent !== rank) cell.textContent = rank;
  }
  const name = key.startsWith("suite:") ? key.slice(6) : tasks[taskAt.get(key)]?.short ?? "";
  head.querySelector("th.rank").replaceChildren("rank", el("br"), el("small", {}, name ? "by " + name : ""));
}

function grouped(rows, key) {
  const out = new Map();
  for (const at of rows) out.set(identity(at, key), [...(out.get(identity(at, key)) ?? []), at]);
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
  nothing.querySelector("bdi").textContent = state.filter;
  if (order.length || !runs.length) nothing.remove();
  else body.after(nothing);
  order.slice(0, FIRST).forEach(equipRow);
  const byLineage = !sorting()[0];
  order.forEach((at, i) => rowOf[at].classList.toggle("first", byLineage && i > 0 && group(order[i - 1]) !== group(at)));
  drawColumns();
  drawDiffers();
  drawRanks();
  const hidden = COLUMNS.filter((column) => vacant(column)).length;
  const told = order.length === runs.length ? rowCount(runs.length) : `${order.length} of ${rowCount(runs.length)}`;
  const show = hidden ? el("button", { type: "button", class: "link", click: () => set({ empty: state.empty ? "" : "show" }) }, `${state.empty ? "hide" : "show"} ${hidden} column${hidden === 1 ? "" : "s"} without a score in these rows`) : null;
  document.getElementById("status").replaceChildren(...[told, show && " · ", show].filter(Boolean));
}

/** A row that says that the filter matches nothing. */
const nothing = el("tbody", {}, el("tr", {}, el("td", { class: "nothing", colspan: String(head.cells.length) }, "No row matches the filter “", el("bdi", {}), "”. ", el("button", { type: "button", click: () => set({ filter: "" }) }, "Clear the filter"))));

/** The columns after name and rank: {key, short, task}. */
const COLUMNS = [...data.suites.map((name) => ({ key: "suite:" + name })), ...COSTS.map((key) => ({ key })), ...tasks.map((task) => ({ key: task.task, short: task.short, task }))];

/** Tests whether no row shown has a score in a column; published rows count only where no others are shown. */
function vacant({ key }) {
  const own = order.filter((at) => runs[at].kind !== "published");
  return order.length > 0 && !(own.length ? own : order).some((at) => { const e = entry(at, key); return e && (typeof e.value === "number" || e.error || e.missing); });
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

/** Describes a cell in words: score, interval, marks. */
function described(cell) {
  const at = Number(cell.parentElement.dataset.at);
  const { task, suite } = cell.dataset;
  const e = task ? runs[at].tasks[task] : runs[at].suites[suite];
  if (!e) return "";
  const score = typeof e.value === "number" ? points(e.value) + (e.lo === undefined || e.lo === null ? "" : `, 95 % interval ${span(e.lo, e.hi)}`) : "no score";
  const title = `${task ? tasks[taskAt.get(task)].short : "average of " + suite}, ${runs[at].model}: ${score}`;
  return [title, ...(task ? [...marksOf(at, task), ...costOf(e)] : averageMarks(e)), ...(runs[at].sample ? ["sample documents: never ranked"] : [])].join("\n");
}

/** Describes the marks of an average in words. */
function averageMarks(e) {
  const out = [];
  if (e.missing) out.push("no average without " + e.missing.map((task) => task.replace(/^tulu3_/, "")).join(", "));
  if (e.part) out.push(e.part === "planned" ? "over the documents of a plan" : "over the documents of a run that stopped early");
  if (e.projected) out.push(`projected from ${e.projected.from} on all ${e.projected.of} documents: ${points(e.projected.value)}${bounds(e.projected)}`);
  return out;
}

/** Shows the description of a cell beside it while it has the pointer or the focus. A tap opens the same words. */
function tip(target) {
  const shown = document.getElementById("tip");
  const cell = target?.closest?.("#board td.average, #board td[data-task]");
  const text = cell && body.contains(cell) ? described(cell) : "";
  shown.hidden = !text;
  if (!text) return;
  shown.textContent = text;
  const at = cell.getBoundingClientRect();
  const [wide, high] = [shown.offsetWidth, shown.offsetHeight];
  shown.style.left = Math.max(4, Math.min(at.right - wide, innerWidth - wide - 4)) + "px";
  shown.style.top = (at.bottom + high + 8 < innerHeight ? at.bottom + 4 : Math.max(4, at.top - high - 4)) + "px";
}

/** The lowest and the highest score of each column, at least ten points apart. */
const scales = new Map(COLUMNS.filter((column) => !COSTS.includes(column.key)).map(({ key }) => {
  const values = runs.map((run, at) => (run.kind === "floor" || run.kind === "mock" || run.sample ? null : entry(at, key)?.value)).filter((value) => typeof value === "number");
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = Math.max(0, 0.1 - (high - low)) / 2;
  return [key, values.length > 1 ? [low - pad, high + pad] : null];
}));

/** Colours the cells of a row: the darker, the higher in its column. */
function heat(at) {
  if (runs[at].kind === "floor" || runs[at].kind === "mock" || runs[at].sample) return;
  COLUMNS.forEach(({ key }, i) => {
    const [scale, value] = [scales.get(key), entry(at, key)?.value];
    if (scale && typeof value === "number") rowOf[at].cells[2 + i].dataset.heat = Math.round((6 * (value - scale[0])) / (scale[1] - scale[0]));
  });
}

/** Makes the static table interactive: buttons in the header and the cells, boxes to pick rows. */
function equip() {
  for (const cell of head.cells) {
    const key = cell.dataset.sort;
    if (!key || key === "rank") continue;
    const suite = cell.dataset.suite;
    cell.replaceChildren(el("button", { type: "button", click: () => sortBy(key) }, el("span", {}, [...cell.childNodes]), suite && suite !== "other" ? el("small", {}, suite) : null));
  }
  for (const at of runs.keys()) if (at < FIRST) equipRow(at);
  body.addEventListener("click", (event) => {
    const cell = event.target.closest("button.cell")?.parentElement;
    if (cell) set({ open: runs[cell.parentElement.dataset.at].run + "/" + cell.dataset.task, compare: "" });
  });
  body.addEventListener("keydown", moveInTable);
  body.addEventListener("focusin", (event) => roam(event.target.closest("button.cell")));
  document.addEventListener("pointerover", (event) => { if (event.pointerType !== "touch") tip(event.target); });
  body.addEventListener("focusin", (event) => tip(event.target));
  body.addEventListener("focusout", () => tip(null));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip(null); });
  document.addEventListener("scroll", () => tip(null), { capture: true, passive: true });
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
  const opener = el("button", { type: "button", class: "link", title: [runs[at].model, ...(runs[at].runs.length ? runs[at].runs : [runs[at].source ?? ""])].join("\n"), click: () => set({ open: runs[at].run, compare: "" }) });
  title.replaceWith(opener);
  opener.append(title);
  for (const cell of cellsOf[at].values()) {
    const button = el("button", { type: "button", class: "cell", tabindex: "-1", "aria-describedby": "tip" });
    button.append(...cell.childNodes);
    button.querySelector("b")?.setAttribute("aria-hidden", "true"); // the description says it in words
    cell.append(button);
  }
  for (const cell of row.querySelectorAll("td.average[title]")) cell.removeAttribute("title");
  heat(at);
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

/** Lists the columns that are shown: neither hidden by the reader nor without a score in all rows shown. */
function shownColumns() {
  const hidden = hiddenColumns();
  return COLUMNS.filter((column) => !hidden.has(column.short) && (state.empty || !vacant(column)));
}

function drawColumns() {
  const shown = new Set(shownColumns());
  const flags = COLUMNS.map((column) => !shown.has(column));
  if (drawColumns.last === flags.join()) return;
  const before = drawColumns.flags ?? COLUMNS.map(() => false);
  [drawColumns.last, drawColumns.flags] = [flags.join(), flags];
  const changed = flags.map((_, i) => i).filter((i) => flags[i] !== before[i]);
  for (const row of [head, ...rowOf]) for (const i of changed) row.cells[2 + i].hidden = flags[i];
  const groups = (cell) => (cell.dataset.skill !== undefined ? (column) => column.task?.skill === cell.dataset.skill : cell.dataset.group === "averages" ? (column) => column.key.startsWith("suite:") : (column) => COSTS.includes(column.key));
  for (const cell of board.tHead.rows[0].querySelectorAll("[data-skill], [data-group]")) {
    const wide = [...shown].filter(groups(cell)).length;
    cell.hidden = !wide;
    if (wide) cell.colSpan = wide;
  }
}

const picks = []; // the ticked rows, in the order of the ticks: baseline, candidate

function picked(event) {
  const at = Number(event.target.closest("tr").dataset.at);
  if (event.target.checked) picks.push(at);
  else picks.splice(picks.indexOf(at), 1);
  if (picks.length > 2) rowOf[picks.shift()].querySelector(".pick").checked = false;
  rowOf.forEach((row, i) => { if (picks.includes(i)) row.dataset.pick = picks.indexOf(i) + 1; else delete row.dataset.pick; });
  const button = document.getElementById("compare");
  button.disabled = picks.length !== 2;
  button.textContent = picks.length === 2 ? "Compare" : picks.length === 1 ? "Compare (pick the candidate)" : "Compare (pick two rows)";
  drawViews();
}
