// The reader's choices, in the URL's hash.
const state = { sort: "", filter: "", open: "", compare: "", columns: "", empty: "", compact: "", colours: "", share: "" };
let quiet = false;

function readHash() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(state)) state[key] = parameters.get(key) ?? "";
}

/** Applies changes to the state and the hash. Opening a panel adds a step to the history. */
function set(changes) {
  const before = state.open + state.compare;
  Object.assign(state, changes);
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value) parameters.set(key, value);
  const hash = "#" + parameters.toString().replace(/%2F/g, "/").replace(/%3A/g, ":").replace(/%2C/g, ",");
  if (hash !== (location.hash || "#")) {
    const step = state.open + state.compare !== before;
    quiet = true;
    try {
      history[step ? "pushState" : "replaceState"](null, "", hash === "#" ? location.pathname + location.search : hash);
    } catch {
      location.hash = hash; // some browsers refuse history calls for files
    }
    quiet = false;
  }
  show();
}

/** Returns [row, column] of `open`: a run, or a run and a task. Names may contain any character except a slash. */
function opened() {
  const cut = state.open.indexOf("/");
  if (runAt.has(state.open)) return [runAt.get(state.open), null];
  if (cut < 0) return null;
  const row = runAt.get(state.open.slice(0, cut));
  const column = taskAt.get(state.open.slice(cut + 1)) ?? taskAt.get("tulu3_" + state.open.slice(cut + 1));
  return row === undefined || column === undefined ? null : [row, column];
}

/** Returns the two rows of `compare`: baseline, candidate. */
function compared() {
  const text = state.compare;
  for (let cut = text.indexOf(","); cut > 0; cut = text.indexOf(",", cut + 1)) {
    const [a, b] = [runAt.get(text.slice(0, cut)), runAt.get(text.slice(cut + 1))];
    if (a !== undefined && b !== undefined) return [a, b];
  }
  return null;
}

const KEYS = {
  since: (run, value) => !run.date || run.date >= value,
  until: (run, value) => !run.date || run.date <= value,
  kind: (run, value) => run.kind.includes(value) || (run.sample && value === "sample"),
  limit: (run, value) => String(run.limit ?? "all") === value,
  task: (run, value) => tasks.some((task) => [task.short, task.task].some((name) => name.toLowerCase() === value) && typeof run.tasks[task.task]?.value === "number"),
  coverage: (run, value) => coverage(run) >= Number.parseFloat(value) - 1e-9,
};

/** Returns the percentage of the tasks of the measured and imported rows that a row has a score of. */
function coverage(run) {
  const all = tasks.filter((task) => taken(task.task));
  return (100 * all.filter((task) => typeof run.tasks[task.task]?.value === "number").length) / (all.length || 1);
}

const takenTasks = new Map();
function taken(task) {
  if (!takenTasks.has(task)) takenTasks.set(task, runs.some((run) => run.kind !== "published" && typeof run.tasks[task]?.value === "number"));
  return takenTasks.get(task);
}

/** Tests whether a row matches the filter: words, and `stage:`, `lineage:`, `model:`, `backend:` and the keys above, with a value. */
function meets(run, filter) {
  for (const [, key, quoted, plain] of filter.matchAll(/(?:(stage|lineage|model|backend|kind|since|until|limit|task|coverage):)?(?:"([^"]*)"|(\S+))/gi)) {
    const value = (quoted ?? plain).toLowerCase();
    if (!value) continue;
    const test = KEYS[key?.toLowerCase()];
    const text = key ? run[key.toLowerCase()] : [run.model, run.run, run.stage, run.lineage, run.kind, run.sample ? "sample" : "", run.apart, run.recipe, ...run.runs].join("\n");
    if (test ? !test(run, value) : !String(text ?? "").toLowerCase().includes(value)) return false;
  }
  return true;
}
