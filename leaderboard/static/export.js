// Downloads of the visible rows and columns of the table, in their order.
function view() {
  const columns = shownColumns().filter((column) => !COSTS.includes(column.key)).map((column) => ({ key: column.key, title: column.short ?? column.key.slice(6) }));
  return { columns, rows: order };
}

const shown = (at, key) => { const e = entry(at, key); return e && typeof e.value === "number" ? (points(e.value) + bounds(e)).replaceAll("−", "-") : ""; };

const DOWNLOADS = {
  CSV: () => {
    // Spreadsheets would run a text that begins with =, +, - or @ as a formula.
    const field = (value) => { const text = String(value ?? ""); const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text; return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe; };
    const { columns, rows } = view();
    const head = ["run", "model", "kind", "sample", "backend", "limit", "stage", "step", "lineage", "date", ...COSTS.map((key) => ({ "cost:tokens": "tokens per answer", "cost:limit": "share at the limit" })[key]), ...columns.flatMap((c) => [c.title, c.title + " low", c.title + " high", c.title + " marks"])];
    const line = (at) => { const r = runs[at]; return [r.run, r.model, r.kind, r.sample ? "yes" : "", r.backend, r.limit, r.stage, r.step, r.lineage, r.date, ...COSTS.map((key) => entry(at, key).value), ...columns.flatMap((c) => { const e = entry(at, c.key); return [e?.value, e?.lo, e?.hi, cellsOf[at].get(c.key)?.dataset.flags ?? ""]; })]; };
    save("leaderboard.csv", "text/csv", [head, ...rows.map(line)].map((fields) => fields.map(field).join(",")).join("\r\n") + "\r\n");
  },
  JSON: () => {
    const { columns, rows } = view();
    const keys = new Set(columns.map((c) => c.key));
    const visible = rows.map((at) => ({ ...runs[at], tasks: Object.fromEntries(Object.entries(runs[at].tasks).filter(([task]) => keys.has(task))) }));
    save("leaderboard.json", "application/json", JSON.stringify({ schema: data.schema, runs: visible }, null, 1));
  },
  Markdown: () => {
    const safe = (text) => text.replaceAll("\\", "\\\\").replaceAll("|", "\\|").replaceAll("<", "&lt;").replaceAll("`", "'");
    const { columns, rows } = view();
    const lines = [["checkpoint", ...columns.map((c) => c.title)], ["---", ...columns.map(() => "---:")], ...rows.map((at) => [name(at) + published(at), ...columns.map((c) => shown(at, c.key))])];
    save("leaderboard.md", "text/markdown", lines.map((fields, i) => "| " + fields.map((f) => (i === 1 ? f : safe(f))).join(" | ") + " |").join("\n") + "\n");
  },
  LaTeX: () => {
    const signs = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
    const safe = (text) => text.replace(/[\\~^&%$#_{}]/g, (c) => signs[c] ?? "\\" + c);
    const { columns, rows } = view();
    const line = (fields) => fields.map(safe).join(" & ").replaceAll("–", "--") + " \\\\";
    const lines = [`\\begin{tabular}{l${"r".repeat(columns.length)}}`, "\\toprule", line(["checkpoint", ...columns.map((c) => c.title)]), "\\midrule", ...rows.map((at) => line([name(at) + published(at), ...columns.map((c) => shown(at, c.key))])), "\\bottomrule", "\\end{tabular}"];
    save("leaderboard.tex", "text/x-tex", lines.join("\n") + "\n");
  },
};

const published = (at) => { const tags = [{ published: "as published", measured: "" }[runs[at].kind] ?? runs[at].backend ?? runs[at].kind, runs[at].sample ? "sample documents" : ""].filter(Boolean); return tags.length ? ` (${tags.join(", ")})` : ""; };
