// The lineage of checkpoints, with the gain of each stage by skill.
const BOX = { wide: 214, line: 16, gapX: 56, gapY: 18 };

async function drawLineage() {
  const section = document.getElementById("lineage");
  const families = [];
  const children = new Map();
  runs.forEach((run, at) => { if (run.parent !== null) children.set(run.parent, [...(children.get(run.parent) ?? []), at]); });
  const seen = new Set();
  const roots = [...runs.keys()].filter((at) => runs[at].kind === "measured" && (runs[at].parent === null || !runAt.has(runs[at].parent)));
  const ghosts = new Map();
  for (const at of roots) {
    if (runs[at].parent === null && !children.has(runs[at].run)) continue;
    if (runs[at].parent === null) families.push(await tree({ at }, children, seen));
    else ghosts.set(runs[at].parent, null);
  }
  for (const name of ghosts.keys()) families.push(await tree({ ghost: name }, children, seen));
  if (!families.length) return;
  section.hidden = false;
  section.append(el("p", { class: "note" }, "Gain over the checkpoint on the left, in points, as the mean over a skill's comparable tasks; ▲ ▼ where p is below 0.05, ≈ where the comparison is not paired. Click a box for recipe, data and the command that repeats the run."), ...families.map(drawTree));
}

/** Builds a node with its children and its gain. */
async function tree(node, children, seen) {
  const name = node.ghost ?? runs[node.at].run;
  node.children = [];
  for (const at of [...(children.get(name) ?? [])].sort((a, b) => (runs[a].step ?? 0) - (runs[b].step ?? 0) || b - a)) {
    if (seen.has(at)) continue;
    seen.add(at);
    const child = { at };
    if (node.at !== undefined) child.gain = await comparison(node.at, at);
    node.children.push(await tree(child, children, seen));
  }
  return node;
}

function lines(node) {
  if (!node.gain) return [];
  return Object.entries(node.gain.skills).map(([skill, e]) => ({ skill, text: (e.how === "unpaired" ? "≈ " : "") + arrow({ ...e, holm: e.p }) + signed(e.d), kind: verdict({ ...e, holm: e.p }), e }));
}

function drawTree(root) {
  const parts = [];
  const free = []; // the position of the next box at each depth
  const place = (node, depth, top) => {
    node.x = depth * (BOX.wide + BOX.gapX) + 4;
    node.height = 46 + lines(node).length * BOX.line;
    node.y = Math.max(top, free[depth] ?? 4);
    free[depth] = node.y + node.height + BOX.gapY;
    for (const child of node.children) place(child, depth + 1, node.y);
  };
  place(root, 0, 4);
  const height = Math.max(...free);
  const draw = (node) => {
    for (const child of node.children) {
      const [x1, y1, x2, y2] = [node.x + BOX.wide, node.y + 22, child.x, child.y + 22];
      parts.push(svg("path", { class: "link", d: `M${x1} ${y1}C${x1 + 28} ${y1} ${x2 - 28} ${y2} ${x2 - 6} ${y2}m-5 -4l6 4l-6 4` }));
      draw(child);
    }
    parts.push(box(node));
  };
  draw(root);
  const width = free.length * (BOX.wide + BOX.gapX) - BOX.gapX + 8;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Lineage of " + (root.ghost ?? runs[root.at].model) }, ...parts);
  picture.style.maxWidth = "none";
  return el("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": "Lineage graph" }, picture);
}

function box(node) {
  const cut = (text, most) => (text.length > most ? "…" + text.slice(1 - most) : text);
  const run = node.at === undefined ? null : runs[node.at];
  const name = run ? run.model : node.ghost.split("/").pop();
  const about = run ? [run.stage, run.step === null ? "" : "step " + run.step, run.date].filter(Boolean).join(" · ") : "not in this table";
  const open = () => run && set({ open: run.run, compare: "" });
  const group = svg("g", { class: "node", tabindex: run ? "0" : null, role: run ? "button" : null, click: open, keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } } },
    svg("rect", { class: "box", x: node.x, y: node.y, width: BOX.wide, height: node.height, rx: 7, "stroke-dasharray": run ? null : "4 3" }),
    label(node.x + 10, node.y + 19, cut(name, 27), { "font-weight": 600 }), label(node.x + 10, node.y + 36, cut(about, 34), { class: "soft", "font-size": 11 }));
  lines(node).forEach((line, i) => {
    const y = node.y + 52 + i * BOX.line;
    group.append(label(node.x + 10, y, cut(line.skill, 22), { class: "soft", "font-size": 11 }), svg("text", { x: node.x + BOX.wide - 10, y, "text-anchor": "end", "font-size": 11, class: line.kind === "up" ? "upf" : line.kind === "down" ? "downf" : null }, line.text));
  });
  return group;
}
