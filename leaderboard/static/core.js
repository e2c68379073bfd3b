// The page's data, and small helpers. Text from runs becomes text nodes only, never HTML.
const data = JSON.parse(document.getElementById("olmes-data").textContent);
const runs = data.runs;
const tasks = data.tasks;
const columnOf = new Map(tasks.map((task) => [task.task, task]));
for (const run of runs) run.runs ??= [run.run]; // left out where it is the only one
for (const run of runs) for (const [task, cell] of Object.entries(run.tasks)) {
  cell.fp = cell.fp === null ? undefined : cell.fp ?? 0; // left out where it is the column's first
  cell.metric ??= columnOf.get(task).metric;
  cell.n ??= columnOf.get(task).n;
}
const runAt = new Map(runs.map((run, at) => [run.run, at]));
for (const [at, run] of runs.entries()) for (const name of run.runs) if (!runAt.has(name)) runAt.set(name, at);
const taskAt = new Map(tasks.map((task, at) => [task.task, at]));
const board = document.getElementById("board");
const body = board.tBodies[0];
const rowOf = [...body.rows];
const panel = document.getElementById("panel");

/** Makes an element; attributes that are null are left out, functions become listeners, children are nodes or text. */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Makes an SVG element, as `el` does. */
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Isolates a text, which may contain marks that change the direction of the text after it. */
function isolated(text) {
  return el("bdi", {}, String(text));
}

const unpacked = new Map();

/** Returns the content of a packed chunk; null where the page has none of that name. */
function chunk(name) {
  if (!unpacked.has(name)) unpacked.set(name, unpack(name));
  if (unpacked.size > 40) unpacked.delete([...unpacked.keys()].find((key) => key !== "pairs" && key !== "details"));
  return unpacked.get(name) ?? unpack(name);
}

async function unpack(name) {
  if (!document.getElementById("chunk-" + name) && document.readyState === "loading") {
    await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
  }
  const holder = document.getElementById("chunk-" + name);
  if (!holder) return null;
  const raw = atob(holder.textContent);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

/** Opens the panel with a title, a line below it, and content. */
function openPanel(title, line, ...content) {
  const close = el("button", { type: "button", click: () => panel.close() }, "Close");
  const heading = el("h2", { id: "panel-title" }, isolated(title), el("p", {}, line));
  panel.replaceChildren(el("div", { class: "panel" }, el("header", {}, heading, close), el("div", { class: "body", tabindex: "0", role: "region", "aria-label": "Details" }, content)));
  if (!panel.open) panel.showModal();
  close.focus();
}

function save(name, type, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
