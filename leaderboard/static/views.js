// Charts of the rows: score against tokens, skills side by side, scores over training steps, the gap between dev and unseen over stages.
const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
const scored = (at, task) => typeof runs[at].tasks[task]?.value === "number";

function drawViews() {
  const section = document.getElementById("views");
  const cards = [tokensCard(), skillBars(), ...stepLines(), ...gapLines()].filter(Boolean);
  section.hidden = !cards.length;
  section.replaceChildren(el("h2", {}, "Charts"), el("div", { class: "cards" }, cards));
}

let tokensOf = ""; // the task of the chart of score against tokens; "" for the mean of the tasks that all rows have

const counts = (at, task) => scored(at, task) && runs[at].tasks[task].tokens !== undefined;

/** Draws score against tokens per answer for the rows shown. */
function tokensCard() {
  if (!tasks.some((task) => runs.some((_, at) => counts(at, task.task)))) return null;
  const holder = el("div", { id: "tokens-view" });
  fillTokens(holder);
  return card("Score against tokens per answer", holder);
}

function fillTokens(holder = document.getElementById("tokens-view")) {
  if (!holder) return;
  const rows = order.filter((at) => runs[at].kind !== "mock" && tasks.some((task) => counts(at, task.task)));
  const shared = tasks.filter((task) => rows.every((at) => counts(at, task.task))).map((task) => task.task);
  const having = tasks.filter((task) => rows.some((at) => counts(at, task.task)));
  const chosen = having.some((task) => task.task === tokensOf) ? tokensOf : shared.length ? "" : having[0]?.task;
  if (chosen === undefined) { holder.replaceChildren(el("p", { class: "empty" }, "No row shown counts tokens.")); return; }
  const dots = rows.filter((at) => !chosen || counts(at, chosen)).map((at) => {
    const members = chosen ? [chosen] : shared;
    const scores = bar(at, 0, members);
    return { name: name(at), x: mean(members.map((task) => runs[at].tasks[task].tokens[0] + runs[at].tasks[task].tokens[1])), y: scores.value, lo: scores.lo, hi: scores.hi };
  });
  const options = [shared.length ? ["", `mean of ${shared.length} task${shared.length > 1 ? "s" : ""} that all rows have`] : null, ...having.map((task) => [task.task, task.short])].filter(Boolean);
  const select = el("select", { "aria-label": "Task of the chart", change: () => { tokensOf = select.value; fillTokens(); document.querySelector("#tokens-view select")?.focus(); } }, options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
  holder.replaceChildren(el("div", { class: "tools" }, select), drawTokens(chosen ? tasks[taskAt.get(chosen)].short : "mean score", dots), el("p", { class: "note" }, "Up and to the left is better: more points for fewer tokens. Bars: 95 % intervals. Tokens of thoughts are included."));
}

const card = (title, ...content) => el("div", { class: "card" }, el("h3", {}, title), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, content));

/** Draws the skills of the picked rows, otherwise of the first four, over the tasks that all of them have. */
function skillBars() {
  const rows = picks.length ? picks : order.filter((at) => measuredKind(runs[at]) && Object.keys(runs[at].tasks).length).slice(0, 4);
  if (!rows.length) return null;
  const groups = [...new Set(tasks.map((task) => task.skill))].map((skill) => {
    const shared = tasks.filter((task) => task.skill === skill && rows.every((at) => scored(at, task.task))).map((task) => task.task);
    return shared.length ? { name: skill, bars: rows.map((at, hue) => bar(at, hue, shared)) } : null;
  }).filter(Boolean);
  if (!groups.length) return null;
  const key = el("p", {}, rows.map((at, hue) => el("span", {}, svg("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("rect", { class: "f" + hue % HUES, width: 11, height: 11, rx: 2 })), isolated(name(at)))));
  key.className = "key";
  return card("Skills", key, drawBars("Mean score by skill of " + rows.map(name).join(", "), groups), el("p", { class: "note" }, "Means over the tasks that all rows shown have. Pick rows in the table to see others."));
}

const name = (at) => runs[at].model + (runs[at].stage ? " · " + runs[at].stage : "") + (runs[at].apart ? " · " + runs[at].apart : "");

function bar(at, hue, shared) {
  const results = shared.map((task) => runs[at].tasks[task]);
  const value = mean(results.map((e) => e.value));
  if (results.some((e) => e.se === undefined)) return { name: name(at), hue, value };
  const wide = (1.959964 * Math.hypot(...results.map((e) => e.se))) / results.length;
  return { name: name(at), hue, value, lo: Math.max(0, value - wide), hi: Math.min(1, value + wide) };
}

/** Groups rows by lineage, in the order of training. */
function lineages() {
  const out = new Map();
  runs.forEach((run, at) => { if (run.kind === "measured") out.set(run.lineage, [...(out.get(run.lineage) ?? []), at]); });
  const depth = (at, seen = new Set()) => (runs[at].parent !== null && runAt.has(runs[at].parent) && !seen.has(at) ? 1 + depth(runAt.get(runs[at].parent), seen.add(at)) : 0);
  for (const rows of out.values()) rows.sort((a, b) => depth(a) - depth(b) || (runs[a].step ?? 0) - (runs[b].step ?? 0) || b - a);
  return out;
}

const trainingOf = (at) => runs[at].training ?? `${runs[at].parent}\n${runs[at].stage}`;
const point = (at, x, task) => { const e = runs[at].tasks[task]; return [x, e.value, e.lo, e.hi]; };

/** Lists the trainings of a stage: the rows of each, by step. */
function trainings(rows, stage) {
  const out = new Map();
  for (const at of rows) if (runs[at].stage === stage && runs[at].step !== null) out.set(trainingOf(at), [...(out.get(trainingOf(at)) ?? []), at]);
  return [...out.values()].map((all) => all.sort((a, b) => runs[a].step - runs[b].step)).filter((all) => new Set(all.map((at) => runs[at].step)).size > 1);
}

/** Draws scores over training steps: of one training a line for each task, of several a line for each training. */
function stepLines() {
  const out = [];
  for (const [lineage, rows] of lineages()) {
    for (const stage of new Set(rows.map((at) => runs[at].stage))) {
      const found = trainings(rows, stage);
      const title = `${lineage}${stage ? ", " + stage : ""}: score over steps`;
      if (found.length > 1) out.push(sweepCard(title, found));
      if (found.length !== 1) continue;
      const steps = found[0];
      const series = tasks.filter((task) => steps.filter((at) => scored(at, task.task)).length > 1).slice(0, 8).map((task) => ({
        name: task.short, points: steps.filter((at) => scored(at, task.task)).map((at) => point(at, runs[at].step, task.task)),
      }));
      if (series.length) out.push(card(title, drawLines("Score over training steps", series, "step")));
    }
  }
  return out.filter(Boolean).slice(0, 6);
}

/** Draws several trainings of one stage, a line each, for a task or for the mean of the tasks that all have. */
function sweepCard(title, found) {
  const rows = found.flat();
  const shared = tasks.filter((task) => rows.every((at) => scored(at, task.task))).map((task) => task.task);
  const having = tasks.filter((task) => found.filter((steps) => steps.filter((at) => scored(at, task.task)).length > 1).length > 1);
  if (!having.length) return null;
  const holder = el("div", {});
  const draw = (task) => {
    const members = task ? [task] : shared;
    const series = found.map((steps) => ({ name: name(steps.at(-1)), points: steps.filter((at) => members.every((one) => scored(at, one))).map((at) => { const b = bar(at, 0, members); return [runs[at].step, b.value, b.lo, b.hi]; }) })).filter((s) => s.points.length > 1);
    holder.replaceChildren(drawLines("Score over training steps, a line for each training", series, "step"));
  };
  const options = [...(shared.length ? [["", `mean of ${shared.length} task${shared.length > 1 ? "s" : ""}`]] : []), ...having.map((task) => [task.task, task.short])];
  const select = el("select", { "aria-label": "Task of the chart", change: () => draw(select.value) }, options.map(([value, text]) => el("option", { value }, text)));
  draw(options[0][0]);
  return card(title, el("div", { class: "tools" }, select), holder);
}

/** Lists the ways from a base model to each last checkpoint of a lineage; of one training only the last step. */
function chains(rows) {
  const last = new Map();
  for (const at of rows) if (!last.has(trainingOf(at)) || (runs[last.get(trainingOf(at))].step ?? 0) < (runs[at].step ?? 0)) last.set(trainingOf(at), at);
  const parents = new Set(rows.filter((at) => runs[at].parent !== null && runAt.has(runs[at].parent)).map((at) => trainingOf(runAt.get(runs[at].parent))));
  return [...last.values()].filter((at) => !parents.has(trainingOf(at))).map((leaf) => {
    const chain = [];
    for (let at = leaf; at !== undefined && !chain.includes(at); at = runs[at].parent === null ? undefined : runAt.get(runs[at].parent)) chain.unshift(at);
    return chain;
  });
}

/** Draws mean dev, mean unseen and their gap over the stages of each lineage. */
function gapLines() {
  const out = [];
  for (const [lineage, rows] of lineages()) {
    for (const chain of chains(rows)) {
      const having = (suite) => tasks.filter((task) => task.suite === suite);
      const full = chain.filter((at) => ["dev", "unseen"].every((suite) => having(suite).some((task) => scored(at, task.task))));
      const shared = (suite) => having(suite).filter((task) => full.every((at) => scored(at, task.task)));
      if (full.length < 2 || !shared("dev").length || !shared("unseen").length) continue;
      const average = (at, suite) => mean(shared(suite).map((task) => runs[at].tasks[task.task].value));
      const labels = full.map((at) => runs[at].stage || runs[at].model.slice(0, 12));
      const series = ["dev", "unseen"].map((suite) => ({ name: `${suite} (${shared(suite).length} tasks)`, labels, points: full.map((at, i) => [i, average(at, suite)]) }));
      series.push({ name: "gap", labels, points: full.map((at, i) => [i, average(at, "dev") - average(at, "unseen")]) });
      out.push(card(`${lineage} to ${runs[chain.at(-1)].model}: dev, unseen and their gap`, drawLines("Dev, unseen and their gap over stages", series, "stage")));
    }
  }
  return out.slice(0, 6);
}
