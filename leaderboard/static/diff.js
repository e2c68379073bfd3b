// A word-by-word difference of two answers.
const MOST_WORDS = 1200;

/** Returns [[kind, text], …] with kind "same", "old" or "new", by the longest common subsequence of words and spaces. */
function difference(before, after) {
  const [a, b] = [before, after].map((text) => text.match(/\s+|[^\s]+/g) ?? []);
  if (a.length > MOST_WORDS || b.length > MOST_WORDS) return before === after ? [["same", before]] : [["old", before], ["new", after]];
  const wide = b.length + 1;
  const table = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) {
    table[i * wide + j] = a[i] === b[j] ? table[(i + 1) * wide + j + 1] + 1 : Math.max(table[(i + 1) * wide + j], table[i * wide + j + 1]);
  }
  const out = [];
  const add = (kind, text) => { if (out.at(-1)?.[0] === kind) out.at(-1)[1] += text; else out.push([kind, text]); };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { add("same", a[i]); i++; j++; }
    else if (j >= b.length || (i < a.length && table[(i + 1) * wide + j] >= table[i * wide + j + 1])) add("old", a[i++]);
    else add("new", b[j++]);
  }
  return out;
}

function drawDifference(before, after) {
  return el("pre", { class: "text" }, difference(before, after).map(([kind, text]) => (kind === "same" ? text : el(kind === "old" ? "del" : "ins", {}, text))));
}
