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
  const score = result?.value === undefined ? "no score" : `${points(result.value)}, 95 % interval ${span(result.lo, result.hi)}`;
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
  const firsts = new Map(docs.map((doc) => [doc.leaf + "\n" + doc.id, doc]));
  for (const doc of docs) if (doc.sent) doc.first = firsts.get(doc.leaf + "\n" + doc.sent[0]);
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
    el("option", { value: "" }, "compare with …"), others.map(([run, i]) => el("option", { value: i, selected: i === documentChoice.against }, name(i))));
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
    el("span", { class: "line" }, doc.prompt ? cutTo(questionOf(doc.prompt).text.slice(0, 2000).replace(/^.*(?:^|\n)(?=(?:Question|Problem|Q):)/s, ""), 90) : String(doc.extracted ?? doc.responses[0] ?? "–").slice(0, 90)));
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

/** Draws a document: the question first, then choices, answers and reference; what was before the question is folded. */
function drawDocument(doc, at) {
  const out = [el("div", {}, isolated(shortPlace(doc.leaf, doc.id)), " ", mark(doc.score), doc.flags.length ? el("span", { class: "note" }, " · " + doc.flags.map((f) => data.troubles[f] ?? f).join(", ")) : null, doc.dirty ? el("span", { class: "note" }, " · ☣ in the training data") : null)];
  const part = (title, ...content) => out.push(el("h3", {}, title), ...content.filter(Boolean));
  const asked = doc.prompt ? questionOf(doc.prompt) : null;
  if (asked) {
    part("Question", block(asked.text), asked.prefix ? el("p", { class: "note" }, "The answer begins with: ", el("code", {}, isolated(asked.prefix))) : null);
    out.push(...asked.before);
  } else if (doc.sent?.[0] === doc.id) part("Prompt, as the model received it", block(doc.sent[1]));
  const choices = choiceTable(doc, asked);
  if (choices) part(choices.matches("p") ? "Answer" : "Choices", choices);
  if (doc.other) {
    const [before, after] = [doc.other, doc].map((d) => responseTexts(d).join("\n"));
    part("Answers", el("div", { class: "two" }, ...[[documentChoice.against, doc.other], [at, doc]].map(([i, d]) => el("div", {}, el("p", { class: "note" }, isolated(runs[i].model), " ", mark(d.score), " extracted: ", isolated(d.extracted ?? "–")), ...(choices ? [] : answers(d))))));
    if (!choices) part("What changed", drawDifference(before, after));
  } else if (!choices) part(doc.responses.length > 1 ? `Answers (${doc.responses.length})` : "Answer", ...answers(doc));
  part("Extracted answer, or the judge's verdict", block(withText(doc.extracted ?? "–", asked)));
  part("Reference", block(withText(doc.reference ?? "–", asked)));
  if (doc.sent && (asked || doc.sent[0] !== doc.id)) out.push(...rendered(doc, asked));
  return out;
}

const LAST_TURN = /<\|start_header_id\|>user<\|end_header_id\|>\s*|<\|im_start\|>user\s*|<\|user\|>\s*|<[|｜]User[|｜]>\s*|<start_of_turn>user\s*|\[INST\]\s*/g;

/** Splits a prompt into the question and what is before it, which is folded: instructions, examples, earlier turns. */
function questionOf(sent) {
  const turns = sent.m ?? [["", sent.t]];
  const [role, whole] = turns.at(-1);
  let start = sent.s ?? 0;
  if (!sent.m) for (const found of whole.matchAll(LAST_TURN)) start = Math.max(start, found.index + found[0].length);
  const system = turns.slice(0, -1).filter(([who]) => who === "system");
  const shots = turns.slice(0, -1).filter(([who]) => who !== "system");
  const fold = (title, ...content) => el("details", { class: "sent" }, el("summary", {}, title), ...content);
  const examples = shots.filter(([who]) => who === "assistant").length;
  const before = [
    system.length ? fold(`System message: ${cutTo(system[0][1], 70)}`, ...system.map(([, text]) => block(text))) : null,
    shots.length ? fold(`${examples} example${examples === 1 ? "" : "s"} before the question`, ...shots.map(([who, text]) => turn(who, text))) : null,
    start ? fold(`Text before the question, ${count(start)} characters`, block(whole.slice(0, start))) : null,
  ].filter(Boolean);
  return { text: whole.slice(start), whole, role, before, prefix: sent.p };
}

const cutTo = (text, most) => { const line = String(text).replace(/\s+/g, " ").trim(); return line.length > most ? line.slice(0, most - 1) + "…" : line; };

/** Returns the text of a choice that is only named by its letter, from the question; "" where it is not there. */
function choiceText(letter, asked) {
  const name = /^\s*\(?([A-Z])\)?[.:]?\s*$/.exec(String(letter ?? ""))?.[1];
  if (!name || !asked) return "";
  const found = [...asked.text.matchAll(new RegExp(`^[ \\t]*\\(?${name}[).:][ \\t]*(.+)$`, "gm"))].at(-1);
  return found ? found[1].trim() : "";
}

const withText = (value, asked) => { const text = choiceText(value, asked); return text && text !== String(value) ? `${value} — ${text}` : value; };

/** Draws the choices with their log-likelihoods; null for generated answers. */
function choiceTable(doc, asked) {
  const lists = [doc, doc.other].filter(Boolean).map((one) => one.responses);
  if (!lists.some((list) => typeof list[0] === "number")) return null;
  const texts = doc.prompt?.c ?? [];
  const is = (value, i) => value !== null && value !== undefined && [texts[i]?.trim(), String.fromCharCode(65 + i), texts.some((text) => text?.trim() === String(value).trim()) ? null : String(i)].includes(String(value).trim());
  const rows = Array.from({ length: Math.max(...lists.map((list) => list.length)) }, (_, i) => {
    const text = texts[i] ?? null;
    const more = choiceText(text, asked);
    const signs = [is(doc.reference, i) ? "reference" : "", is(doc.extracted, i) ? "chosen" : "", doc.other && is(doc.other.extracted, i) ? "chosen by the other" : ""].filter(Boolean).join(", ");
    const values = lists.map((list) => { const most = Math.max(...list); return el("td", { class: list[i] === most ? "most" : null }, typeof list[i] === "number" ? list[i].toFixed(2).replace("-", "−") : "–"); });
    return el("tr", {}, el("th", { scope: "row" }, text === null ? `choice ${i + 1} (its text is not recorded)` : [isolated(text.trim() || JSON.stringify(text)), more ? [" — ", isolated(more)] : null]), ...values, el("td", {}, signs));
  });
  if (rows.length === 1 && !texts.length) return el("p", {}, "Log-likelihood: ", lists.map((list) => (list[0] ?? NaN).toPrecision(3).replace("-", "−")).join(", of the other: "));
  const heads = ["choice", ...(doc.other ? ["log-likelihood", "of the other"] : ["log-likelihood"]), ""];
  return el("div", { class: "scroll" }, el("table", { class: "grid choices" }, el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, rows)));
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

/** Shows, folded, the prompt as the model received it. Only the first prompt of a task is recorded; others follow from it. */
function rendered(doc, asked) {
  const [id, text, tokens] = doc.sent;
  const fold = (title, ...content) => el("details", { class: "sent" }, el("summary", {}, title), ...content);
  if (id === doc.id) return [fold(`As the model received it, ${tokens} tokens`, block(text)), ...added(text, doc.prompt)];
  const first = doc.first?.prompt ? questionOf(doc.first.prompt) : null;
  const alike = first && asked && JSON.stringify((doc.first.prompt.m ?? []).slice(0, -1)) === JSON.stringify((doc.prompt.m ?? []).slice(0, -1)) && first.prefix === asked.prefix;
  const pieces = alike ? text.split(first.whole.trim()) : [];
  if (pieces.length === 2) return [fold(`As the model received it, from the template's text around document ${id}`, block(pieces[0] + asked.whole.trim() + pieces[1])), ...added(text, doc.first.prompt)];
  return [fold(`As the model received document ${id}, the first of the task, ${tokens} tokens`, block(text))];
}

/** Says which text the chat template put before the first message, such as a system message of its own. */
function added(text, sent) {
  const at = sent?.m ? text.indexOf(sent.m[0][1].trim()) : -1;
  const words = at > 0 ? text.slice(0, at).trim() : "";
  return /[^\s<>|_\[\]｜▁]{3,}\s+\S+\s+\S+/.test(words.replace(/<[^>]*>/g, "")) ? [el("p", { class: "cut" }, "The chat template added before the first message: ", el("code", {}, isolated(words)))] : [];
}

const turn = (role, text) => el("div", { class: "turn " + (["system", "user", "assistant"].includes(role) ? role : "") }, el("span", {}, isolated(role)), block(text));

const block = (text) => el("pre", { class: "text" }, String(text));

/** Returns the responses as texts; log-likelihoods are shown beside their continuations. */
function responseTexts(doc) {
  if (!doc.responses.length) return ["(no response recorded)"];
  if (typeof doc.responses[0] !== "number") return doc.responses.map((text) => text ?? "");
  return [doc.responses.map((value, i) => `${value.toFixed(3)}  ${doc.prompt?.c?.[i] ?? "choice " + i}`).join("\n")];
}
