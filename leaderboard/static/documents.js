// A cell's documents: prompts, responses and scores.
const documentChoice = { verdict: "all", against: null, text: "" };
const LINE = 46;

const hasDocuments = (at, column) => document.getElementById(`chunk-c${at}-${column}`) !== null || document.readyState === "loading";
const shortPlace = (leaf, id) => `${leaf.replace(/^tulu3_/, "")} ${id}`;

const VERDICTS = {
  all: () => true,
  right: (d) => d.score >= 1,
  wrong: (d) => d.score !== null && d.score < 1,
  flipped: (d) => d.other && d.other.score !== d.score,
  truncated: (d) => ["truncated", "length", "unclosed"].some((flag) => d.flags.includes(flag)),
  contaminated: (d) => d.dirty,
  "no answer found": (d) => d.flags.includes("extraction_failed") || d.flags.includes("empty"),
};

async function showCell([at, column]) {
  const [run, task] = [runs[at], tasks[column]];
  const result = run.tasks[task.task];
  const cell = await chunk(`c${at}-${column}`);
  const score = result?.value === undefined ? "no score" : `${points(result.value)} ${half(result.lo, result.hi)}, 95 % interval ${span(result.lo, result.hi)}`;
  const marks = el("ul", { class: "marks" }, result ? marksOf(at, task.task).map((text) => el("li", {}, isolated(text))) : null);
  const cost = result && costOf(result).length ? el("p", { class: "note" }, isolated(costOf(result).join(" · "))) : null;
  const line = isolated([run.model, run.stage, result?.metric, score, result?.n ? `${result.n} documents` : ""].filter(Boolean).join(" · "));
  if (!cell) {
    const why = run.kind === "published" ? "Published numbers have no documents." : data.instances === "none" ? "The page contains no documents (--instances none)." : "The page contains no documents of this cell.";
    openPanel(task.short, line, marks, cost, el("p", { class: "empty" }, why), cleanTable(result));
    return;
  }
  const prompts = await chunk(cell.prompts);
  const promptOf = new Map(prompts.docs.map((doc) => [prompts.leaves[doc[0]] + "\n" + doc[1], doc]));
  const docs = cell.docs.map((doc) => named(doc, cell, promptOf));
  await against(docs, at, column);
  openPanel(task.short, line, marks, cost, cleanTable(result), browser(docs, at, column, cell, prompts.note));
}

/** Names the fields of a packed document. */
function named(doc, cell, prompts) {
  const [leaf, id, score, extracted, flags, dirty, responses, told] = doc;
  const [, , prompt, reference] = prompts?.get(cell.leaves[leaf] + "\n" + id) ?? [];
  return { leaf: cell.leaves[leaf], id, score, extracted, flags, dirty: Boolean(dirty), responses, told: told ?? [], prompt, reference, sent: cell.sent?.[cell.leaves[leaf]] };
}

function cleanTable(result) {
  if (!result?.clean) return null;
  const line = (name, e, n) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, points(e.value)), el("td", {}, span(e.lo, e.hi)), el("td", {}, String(n)));
  return el("table", { class: "grid" }, el("tbody", {}, line("all documents", result, result.n), line("without contaminated ones", result.clean, result.clean.n)));
}

/** Puts the other row's answer beside each document. */
async function against(docs, at, column) {
  const other = documentChoice.against;
  const cell = other === null || other === at ? null : await chunk(`c${other}-${column}`);
  const others = new Map((cell?.docs ?? []).map((doc) => [cell.leaves[doc[0]] + "\n" + doc[1], named(doc, cell)]));
  for (const doc of docs) doc.other = others.get(doc.leaf + "\n" + doc.id) ?? null;
}

function browser(docs, at, column, cell, note) {
  const count = el("span", { class: "note", role: "status" });
  const view = el("div", { class: "doc", tabindex: "0", role: "region", "aria-label": "Document" });
  const list = listOf(view, at);
  const draw = () => {
    const words = documentChoice.text.toLowerCase();
    const chosen = docs.filter((doc) => VERDICTS[documentChoice.verdict](doc) && (!words || haystack(doc).includes(words)));
    count.textContent = `${chosen.length} of ${docs.length} documents${cell.only === "flips" ? " (those on which rows disagree)" : ""}`;
    list.fill(chosen);
  };
  const search = el("input", { type: "search", placeholder: "Search prompts, answers, references", "aria-label": "Search documents", value: documentChoice.text, input: () => { documentChoice.text = search.value; draw(); } });
  const kind = el("select", { "aria-label": "Verdict", change: () => { documentChoice.verdict = kind.value; draw(); } }, Object.keys(VERDICTS).map((name) => el("option", { value: name, selected: name === documentChoice.verdict }, name)));
  const others = runs.map((run, i) => [run, i]).filter(([, i]) => i !== at && hasDocuments(i, column) && runs[i].tasks[tasks[column].task]);
  const beside = el("select", { "aria-label": "Compare with", change: async () => { documentChoice.against = beside.value === "" ? null : Number(beside.value); await against(docs, at, column); draw(); } },
    el("option", { value: "" }, "compare with …"), others.map(([run, i]) => el("option", { value: i, selected: i === documentChoice.against }, run.model + (run.stage ? " · " + run.stage : ""))));
  queueMicrotask(draw);
  return el("div", {}, el("div", { class: "tools" }, search, kind, beside, count), note ? el("p", { class: "note" }, isolated(note)) : null, el("div", { class: "split" }, list.element, view));
}

/** Joins all text of a document, in lower case. */
function haystack(doc) {
  return (doc.hay ??= [doc.leaf, doc.id, doc.reference, doc.extracted, ...doc.responses, ...doc.told.map((one) => one[0]), doc.prompt?.t, ...(doc.prompt?.m ?? []).map((m) => m[1])].filter((t) => t !== null && t !== undefined).join("\n").toLowerCase());
}

/** Makes a list that draws only its visible lines; arrow keys move in it. */
function listOf(view, at) {
  let [docs, current] = [[], 0];
  const space = el("div", {});
  const element = el("div", { class: "list", tabindex: "0", role: "group", "aria-label": "Documents; arrow keys move" }, space);
  const draw = () => {
    const first = Math.max(0, Math.floor(element.scrollTop / LINE) - 5);
    const last = Math.min(docs.length, first + Math.ceil((element.clientHeight || 600) / LINE) + 10);
    space.style.paddingTop = first * LINE + "px";
    space.style.paddingBottom = (docs.length - last) * LINE + "px";
    space.replaceChildren(...docs.slice(first, last).map((doc, i) => line(doc, first + i)));
  };
  const line = (doc, i) => el("button", { type: "button", tabindex: "-1", "aria-current": i === current ? "true" : null, click: () => select(i) },
    isolated(shortPlace(doc.leaf, doc.id)), " ", mark(doc.score), doc.other ? el("span", { class: "note" }, " was ", mark(doc.other.score)) : null, doc.dirty ? " ☣" : "",
    el("span", { class: "line" }, String(doc.extracted ?? doc.responses[0] ?? "–").slice(0, 90)));
  const select = (i) => {
    current = Math.max(0, Math.min(i, docs.length - 1));
    if ((current + 1) * LINE > element.scrollTop + element.clientHeight) element.scrollTop = (current + 1) * LINE - element.clientHeight;
    if (current * LINE < element.scrollTop) element.scrollTop = current * LINE;
    draw();
    view.replaceChildren(...(docs[current] ? drawDocument(docs[current], at) : [el("p", { class: "empty" }, "No document matches.")]));
    view.scrollTop = 0;
  };
  element.addEventListener("scroll", draw, { passive: true });
  element.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (step) { event.preventDefault(); select(current + step); }
  });
  return { element, fill: (chosen) => { docs = chosen; element.scrollTop = 0; select(0); } };
}

function mark(score) {
  if (score === null) return el("span", { class: "verdict" }, "–");
  const kind = score >= 1 ? "right" : score <= 0 ? "wrong" : "partly";
  return el("span", { class: "verdict " + kind }, score >= 1 ? "✓ right" : score <= 0 ? "✗ wrong" : points(score));
}

function drawDocument(doc, at) {
  const out = [el("div", {}, isolated(shortPlace(doc.leaf, doc.id)), " ", mark(doc.score), doc.flags.length ? el("span", { class: "note" }, " · " + doc.flags.map((f) => data.troubles[f] ?? f).join(", ")) : null, doc.dirty ? el("span", { class: "note" }, " · ☣ in the training data") : null)];
  const part = (title, ...content) => out.push(el("h3", {}, title), ...content);
  if (doc.other) {
    const [before, after] = [doc.other, doc].map((d) => responseTexts(d).join("\n"));
    part("Answers", el("div", { class: "two" }, ...[[documentChoice.against, doc.other], [at, doc]].map(([i, d]) => el("div", {}, el("p", { class: "note" }, isolated(runs[i].model), " ", mark(d.score), " extracted: ", isolated(d.extracted ?? "–")), ...answers(d)))));
    part("What changed", drawDifference(before, after));
  } else part(doc.responses.length > 1 ? `Responses (${doc.responses.length})` : "Response", ...answers(doc));
  part("Extracted answer, or the judge's verdict", block(doc.extracted ?? "–"));
  part("Reference", block(doc.reference ?? "–"));
  if (doc.prompt) part("Prompt, before the chat template", ...prompt(doc.prompt));
  if (doc.sent) out.push(rendered(doc.sent));
  return out;
}

/** Draws each response with its thought folded above it, its length, and where it was cut. */
function answers(doc) {
  return responseTexts(doc).map((text, i) => {
    const [thought, thinking, rest, end, score] = doc.told[i] ?? [null, 0, 0, "", null];
    const cut = end.includes("length") ? el("p", { class: "cut" }, "✂ cut at the token limit") : end ? el("p", { class: "cut" }, "the answer ended inside the thought") : null;
    const inThought = end.includes("unclosed");
    const same = inThought && thought && text && text.slice(0, 1000) === thought.slice(0, 1000);
    const size = thinking ? `${count(thinking)} tokens` : `${count(thought?.length)} characters`;
    const told = [thinking + rest ? `${count(thinking + rest)} tokens` : "", thinking ? `${count(thinking)} of them thought` : ""].filter(Boolean).join(", ");
    const several = doc.responses.length > 1 && score !== null && score !== undefined;
    return el("div", { class: "answer" },
      several || told ? el("p", { class: "note" }, several ? [`${i + 1}. `, mark(score), told ? " · " : ""] : null, told) : null,
      thought ? el("details", { class: "thought" }, el("summary", {}, `Thought, ${size}${inThought ? ", not closed" : ""}${inThought && end.includes("length") ? ", cut at the token limit" : ""}`), block(thought), inThought ? cut : null) : null,
      block(same ? "(no closing mark: the text of the thought was scored)" : text || (thought ? "(nothing after the thought)" : "")), inThought && thought ? null : cut);
  });
}

/** Shows, folded, the first prompt of the task as the model received it. */
function rendered([id, text, tokens]) {
  return el("details", { class: "sent" }, el("summary", {}, `As the model received it: document ${id}, ${tokens} tokens`), block(text));
}

const block = (text) => el("pre", { class: "text" }, String(text));

/** Returns the responses as texts; log-likelihoods are shown beside their continuations. */
function responseTexts(doc) {
  if (!doc.responses.length) return ["(no response recorded)"];
  if (typeof doc.responses[0] !== "number") return doc.responses.map((text) => text ?? "");
  return [doc.responses.map((value, i) => `${value.toFixed(3)}  ${doc.prompt?.c?.[i] ?? "choice " + i}`).join("\n")];
}

function prompt(sent) {
  const turn = (role, text) => el("div", { class: "turn " + (["system", "user", "assistant"].includes(role) ? role : "") }, el("span", {}, isolated(role)), block(text));
  const turns = sent.m ? sent.m.map(([role, text]) => turn(role, text)) : [turn("plain text", sent.t)];
  if (sent.p) turns.push(turn("assistant (prefix of the answer)", sent.p));
  return turns;
}
