// Formats of numbers, and the statistics that the page computes itself.
const points = (value, digits = 1) => (value === null || value === undefined ? "–" : (100 * value).toFixed(digits).replace("-", "−"));
const signed = (value, digits = 1) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : "") + points(value, digits));
const span = (lo, hi, sign = false) => (lo === undefined || lo === null ? "–" : (sign ? signed : points)(lo) + " … " + (sign ? signed : points)(hi));
const pValue = (p) => (p === undefined || p === null ? "–" : p < 0.001 ? "<0.001" : p < 0.1 ? p.toFixed(3) : p.toFixed(2));
const perAnswer = (value) => (value > 0 && value < 10 ? value.toFixed(1) : count(value));
const count = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US"));
const multiple = (value) => (value >= 9.95 ? value.toFixed(0) : value >= 0.095 ? value.toFixed(1) : value.toFixed(2));
const bounds = (e) => (!e || e.lo === undefined || e.lo === null ? "" : ` (${points(e.lo)}–${points(e.hi)})`);

/** Computes P(Z < z), Abramowitz and Stegun 26.2.17: absolute error below 7.5e-8. */
function normal(z) {
  const t = 1 / (1 + 0.2316419 * Math.abs(z));
  const tail = 0.3989422804 * Math.exp((-z * z) / 2) * t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return z > 0 ? 1 - tail : tail;
}

/** Adjusts p-values by Holm's step-down method. */
function holm(values) {
  const order = values.map((p, i) => [p, i]).sort((a, b) => a[0] - b[0]);
  const out = new Array(values.length);
  let most = 0;
  order.forEach(([p, i], k) => { most = Math.min(1, Math.max(most, p * (values.length - k))); out[i] = most; });
  return out;
}

/** Computes the difference of two scores as if the runs were independent; its interval is wider than a paired one. */
function unpaired(a, b) {
  const entry = { d: b.value - a.value, n: Math.min(a.n ?? 0, b.n ?? 0) || undefined, how: "unpaired" };
  if (a.se === undefined || b.se === undefined || a.se === null || b.se === null) return entry;
  const se = Math.hypot(a.se, b.se);
  const p = se ? 2 * (1 - normal(Math.abs(entry.d) / se)) : entry.d ? 0 : 1;
  return { ...entry, se, lo: Math.max(-1, entry.d - 1.959964 * se), hi: Math.min(1, entry.d + 1.959964 * se), p, det: 2.801585 * se };
}

/** Computes rank intervals of {value, se} from the numbers of surely better and surely worse values. */
function ranks(values) {
  const having = values.filter((v) => v);
  const surely = (a, b) => a.value - b.value > 1.959964 * Math.hypot(a.se ?? 0, b.se ?? 0);
  return values.map((v) => v && [1 + having.filter((o) => surely(o, v)).length, having.length - having.filter((o) => surely(v, o)).length]);
}

/** Lists the parts of the fingerprint in which two cells differ. */
function differing(task, a, b) {
  if (!a || !b || a.fp === undefined || b.fp === undefined || a.fp === b.fp) return [];
  const [one, other] = [data.fingerprints[task][a.fp], data.fingerprints[task][b.fp]];
  return data.parts.filter((_, i) => one[i] !== other[i]);
}
