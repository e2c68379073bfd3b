// The details of a checkpoint: its origin, and the commands that repeat its runs.
async function showRow(at) {
  const run = runs[at];
  const details = (await chunk("details"))?.[at] ?? { runs: [] };
  const about = [run.kind === "published" ? "as published" : run.kind, run.stage, run.step === null ? "" : "step " + run.step, run.recipe, run.apart, run.date].filter(Boolean).join(" · ");
  openPanel(run.model, isolated(about), facts(run, details), ...details.runs.map((manifest) => manifestOf(manifest)));
}

function facts(run, details) {
  const list = el("dl", { class: "facts" });
  const add = (name, ...content) => { if (content.some((c) => c)) list.append(el("dt", {}, name), el("dd", {}, ...content)); };
  const first = details.runs[0] ?? {};
  const lineage = details.runs.map((m) => m.lineage ?? {}).find((l) => Object.keys(l).length) ?? {};
  if (run.source) add("source", isolated(run.source));
  add("checkpoint", first.model?.path && isolated(first.model.path));
  add("trained from", run.parent && (runAt.has(run.parent) ? el("button", { type: "button", class: "link", click: () => set({ open: run.parent }) }, isolated(runs[runAt.get(run.parent)].model)) : isolated(run.parent)));
  add("lineage", run.kind === "published" ? "" : isolated(run.lineage));
  add("looks at unseen", run.looks ? `${run.looks} by the whole lineage` : "");
  add("watch over the training", ...(run.watch ?? []).map((line) => el("div", {}, isolated(line))));
  add("ranked", run.kind === "mock" ? "no: answers without a model" : run.sample ? "no: sample documents" : "");
  for (const [suite, e] of Object.entries(run.suites)) if (typeof e.value === "number" || e.missing) add("average of " + suite, isolated([points(e.value) + bounds(e), ...averageMarks(e)].join("; ")));
  add("settings", ...Object.entries(details.facts ?? {}).map(([key, value]) => el("div", {}, isolated(`${key}: ${value}`))));
  add("recipe", lineage.recipe ? el("pre", { class: "json" }, pretty(lineage.recipe)) : "");
  add("training data", ...(Array.isArray(lineage.data) ? lineage.data.map((d) => el("div", {}, isolated(`${d?.path ?? "?"}  sha256 ${d?.sha256 ?? "?"}`))) : []));
  add("decontamination", lineage.decontam ? el("pre", { class: "json" }, pretty(lineage.decontam)) : "");
  add("contaminated", lineage.flags && Object.keys(lineage.flags).length ? isolated(Object.entries(lineage.flags).map(([task, n]) => `${task}: ${n} documents`).join(", ")) : "");
  return list;
}

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

/** Quotes a word of a shell command where it needs quotes. */
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : "'" + String(word).replaceAll("'", "'\\''") + "'");

function manifestOf(manifest) {
  const command = (Array.isArray(manifest.command) ? manifest.command : []).map(quoted).join(" ");
  const copy = el("button", { type: "button", click: () => navigator.clipboard?.writeText(command) }, "Copy");
  return el("section", {},
    el("h3", {}, "Run ", isolated(manifest.run ?? "")),
    command ? el("div", {}, el("p", { class: "note" }, "The command that repeats the run ", copy), el("pre", { class: "json" }, command)) : null,
    el("details", {}, el("summary", {}, "Manifest"), el("pre", { class: "json" }, pretty(manifest))));
}
