// The controls above the table, the theme, and the drawing after changes of the state.
function menu(title, ...content) {
  const inside = el("div", { hidden: true }, content);
  const button = el("button", { type: "button", "aria-expanded": "false", click: () => toggle(inside.hidden) }, title + " ▾");
  const toggle = (open) => { inside.hidden = !open; button.setAttribute("aria-expanded", String(open)); };
  const whole = el("div", { class: "menu", keydown: (event) => { if (event.key === "Escape") { toggle(false); button.focus(); } } }, button, inside);
  inside.addEventListener("click", (event) => { if (event.target.closest("[data-done]")) toggle(false); });
  document.addEventListener("click", (event) => { if (!whole.contains(event.target)) toggle(false); });
  return whole;
}

/** Replaces the value of one key in the filter. */
function withToken(key, value) {
  const rest = state.filter.replace(new RegExp(`\\b${key}:("[^"]*"|\\S+)`, "gi"), "").replace(/\s+/g, " ").trim();
  return [rest, value && `${key}:${/\s/.test(value) ? `"${value}"` : value}`].filter(Boolean).join(" ");
}

const tokenOf = (key) => { const match = state.filter.match(new RegExp(`\\b${key}:(?:"([^"]*)"|(\\S+))`, "i")); return match ? match[1] ?? match[2] : ""; };

function chooser(title, key, options) {
  const values = options ?? [...new Set(runs.map((run) => String(run[key] ?? "")).filter((value) => value && !value.includes('"')))].sort().map((value) => [value, value.length > 40 ? value.slice(0, 39) + "…" : value]);
  if (values.length < (options ? 1 : 2)) return null;
  return el("label", { class: "row" }, el("span", {}, title), el("select", { "data-key": key, change: (event) => set({ filter: withToken(key, event.target.value) }) }, el("option", { value: "" }, "any"), values.map(([value, text]) => el("option", { value }, text))));
}

function filterMenu() {
  const limits = [...new Set(runs.filter((run) => run.kind !== "published").map((run) => run.limit ?? "all"))].sort((a, b) => (a === "all") - (b === "all") || a - b);
  const own = tasks.filter((task) => taken(task.task));
  const covered = [...new Set(runs.map((run) => Math.floor(coverage(run))))];
  const dates = new Set(runs.map((run) => run.date).filter(Boolean)).size > 1;
  return menu("Filters", ...[
    chooser("stage", "stage"), chooser("lineage", "lineage"), chooser("kind", "kind"), chooser("backend", "backend"),
    limits.length > 1 ? chooser("documents of each task", "limit", limits.map((limit) => [String(limit).toLowerCase(), limit === "all" ? "all" : `limit ${limit}`])) : null,
    own.length > 1 ? chooser("has a score of", "task", own.map((task) => [task.short.toLowerCase(), task.short])) : null,
    covered.length > 1 ? chooser("tasks covered", "coverage", [["100", "all tasks"], ["75", "at least 75 %"], ["50", "at least 50 %"], ["25", "at least 25 %"]]) : null,
    dates ? el("label", { class: "row" }, el("span", {}, "since"), el("input", { type: "date", "data-key": "since", change: (event) => set({ filter: withToken("since", event.target.value) }) })) : null,
  ].filter(Boolean));
}

/** A box in the menu that sets a key of the state to one of two values. */
const choice = (key, checked, unchecked, title) => el("label", {}, el("input", { type: "checkbox", "data-state": key, value: checked, change: (event) => set({ [key]: event.target.checked ? checked : unchecked }) }), title);

function columnMenu() {
  const box = (task) => el("label", {}, el("input", { type: "checkbox", "data-short": task.short, change: (event) => hide([task.short], !event.target.checked) }), isolated(task.short), task.suite === "other" ? null : el("span", { class: "tag " + task.suite }, task.suite));
  const hide = (names, off) => { const hidden = hiddenColumns(); for (const one of names) off ? hidden.add(one) : hidden.delete(one); set({ columns: [...hidden].join(",") }); };
  const only = (suite) => el("button", { type: "button", click: () => set({ columns: tasks.filter((task) => suite && task.suite !== suite).map((task) => task.short).join(",") }) }, suite ? `only ${suite}` : "all");
  return menu("Columns", el("div", { class: "tools" }, only(""), only("dev"), only("unseen")), tasks.map(box));
}

function tools() {
  const holder = document.getElementById("tools");
  const search = el("input", { type: "search", id: "filter", placeholder: "Filter: words, stage:dpo, task:gsm8k …", "aria-label": "Filter rows", input: () => set({ filter: search.value }) });
  const compare = el("button", { type: "button", id: "compare", disabled: true, title: "The row ticked first is the baseline", click: () => set({ compare: picks.map((at) => runs[at].run).join(","), open: "" }) }, "Compare (pick two rows)");
  const link = el("button", { type: "button", click: async () => { try { await navigator.clipboard.writeText(location.href); link.textContent = "Copied"; } catch { link.textContent = "The link is in the address bar"; } setTimeout(() => { link.textContent = "Copy link"; }, 2000); } }, "Copy link");
  const reset = el("button", { type: "button", id: "reset", click: () => set({ sort: "", filter: "", columns: "", empty: "", compact: "", colours: "" }) }, "Reset");
  holder.append(...[search, filterMenu(), compare, el("span", { class: "spacer" }), menu("View", choice("compact", "on", "", "compact: scores alone"), choice("colours", "", "off", "colours"), choice("empty", "show", "", "columns without a score")), columnMenu(), menu("Download", Object.entries(DOWNLOADS).map(([title, go]) => el("button", { type: "button", "data-done": true, click: go }, title))), link, reset].filter(Boolean));
  holder.hidden = false;
}

function drawTools() {
  const search = document.getElementById("filter");
  if (document.activeElement !== search) search.value = state.filter;
  for (const one of document.querySelectorAll("#tools [data-key]")) one.value = tokenOf(one.dataset.key);
  const hidden = hiddenColumns();
  for (const box of document.querySelectorAll("#tools [data-short]")) box.checked = !hidden.has(box.dataset.short);
  for (const box of document.querySelectorAll("#tools [data-state]")) box.checked = state[box.dataset.state] === box.value;
  document.getElementById("reset").disabled = !["sort", "filter", "columns", "empty", "compact", "colours"].some((key) => state[key]);
}

/** Follows the system's theme until the reader switches it; browsers that allow storage for files remember the choice. */
function theme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("olmes-theme"); } catch { /* some browsers have no storage for files */ }
  const draw = () => {
    const dark = chosen ? chosen === "dark" : system.matches;
    document.documentElement.classList.toggle("dark", chosen === "dark");
    document.documentElement.classList.toggle("light", chosen === "light");
    button.textContent = dark ? "Light" : "Dark";
  };
  button.addEventListener("click", () => {
    chosen = (chosen ? chosen === "dark" : system.matches) ? "light" : "dark";
    try { localStorage.setItem("olmes-theme", chosen); } catch { /* then the choice lasts until the page is closed */ }
    draw();
  });
  system.addEventListener("change", draw);
  button.hidden = false;
  draw();
}

let drawn = "";
let panelShows = "";

function show() {
  const now = JSON.stringify([state.sort, state.filter, state.columns, state.empty, state.compact, state.colours]);
  if (now !== drawn) {
    drawn = now;
    board.classList.toggle("compact", state.compact === "on");
    board.classList.toggle("heated", state.colours !== "off");
    drawHead(); drawRows(); drawTools(); fillTokens();
  }
  const choice = state.open + "\n" + state.compare;
  if (choice === panelShows) return;
  panelShows = choice;
  const [cell, pair] = [opened(), compared()];
  const failed = (error) => openPanel("This cannot be shown", String(error.message ?? error));
  if (cell) (cell[1] === null ? showRow(cell[0]) : showCell(cell)).catch(failed);
  else if (pair) showCompare(pair).catch(failed);
  else if (panel.open) panel.close();
}

const MOST_SHARED = 30;

/** Lays the page out as a picture: the table alone, with its first rows; `data-size` tells the size in pixels. */
function share() {
  document.documentElement.classList.add("share");
  const rows = order.slice(0, MOST_SHARED);
  rowOf.forEach((row, at) => { row.hidden = !rows.includes(at); });
  rows.forEach(equipRow);
  const newest = runs.map((run) => run.date).sort().at(-1);
  const left = order.length - rows.length;
  document.querySelector("main").append(el("p", { class: "note" }, [state.compact ? "points" : "points with 95 % intervals", left ? `first ${rows.length} of ${order.length} rows` : "", newest ? `newest run ${newest}` : "", "olmes leaderboard"].filter(Boolean).join(" · ")));
  const box = document.body.getBoundingClientRect();
  document.documentElement.dataset.size = `${Math.ceil(box.width)}x${Math.ceil(box.height)}`;
}

function start() {
  theme();
  equip();
  tools();
  document.getElementById("nav").hidden = false;
  panel.addEventListener("close", () => { if (state.open || state.compare) set({ open: "", compare: "" }); });
  panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); });
  const follow = () => { if (!quiet) { readHash(); show(); } };
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);
  readHash();
  show();
  if (state.share) share();
  const legend = document.getElementById("legend");
  addEventListener("beforeprint", () => { tip(null); legend.dataset.open = legend.open; legend.open = true; });
  addEventListener("afterprint", () => { legend.open = legend.dataset.open === "true"; });
  document.documentElement.dataset.ready = Math.round(performance.now());
  setTimeout(equipRest);
  const later = () => drawLineage().then(drawViews);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", later, { once: true });
  else later();
}

start();
