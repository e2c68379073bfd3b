// Charts as SVG, drawn from numbers. Every chart has a title and a description for screen readers.
const HUES = 6;

/** Chooses round numbers for an axis between two values. */
function ticks(low, high, about = 5) {
  const raw = (high - low || 1) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  const out = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) out.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return out;
}

function chart(width, height, title, ...content) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title }, svg("title", {}, title), ...content);
}

const label = (x, y, text, extra = {}) => svg("text", { x, y, ...extra }, text);

/** Draws points with error bars and the diagonal; x and y are fractions. Names are in a column at the right. */
function drawScatter(dots) {
  const [size, left, bottom, right] = [400, 52, 40, 170];
  const ends = dots.flatMap((d) => [d.x - 1.96 * d.sx, d.x + 1.96 * d.sx, d.y - 1.96 * d.sy, d.y + 1.96 * d.sy, 0]);
  const pad = (Math.max(...ends) - Math.min(...ends)) * 0.06 || 0.01;
  const [low, high] = [Math.min(...ends) - pad, Math.max(...ends) + pad];
  const x = (v) => left + ((v - low) / (high - low)) * (size - left - 10);
  const y = (v) => size - bottom - ((v - low) / (high - low)) * (size - bottom - 10);
  const parts = [svg("path", { class: "axis", d: `M${x(low)} ${y(0)}H${x(high)}M${x(0)} ${y(low)}V${y(high)}` }), svg("path", { class: "link", d: `M${x(low)} ${y(low)}L${x(high)} ${y(high)}`, "stroke-dasharray": "3 4" })];
  for (const t of ticks(low, high, 5)) parts.push(label(x(t), size - 22, signed(t, 0), { "text-anchor": "middle", class: "soft" }), label(left - 6, y(t) + 4, signed(t, 0), { "text-anchor": "end", class: "soft" }));
  parts.push(label((left + size) / 2, size - 5, "gain on dev, points", { "text-anchor": "middle" }), label(13, size / 2, "gain on unseen, points", { "text-anchor": "middle", transform: `rotate(-90 13 ${size / 2})` }));
  const rows = spread(dots.map((d) => y(d.y)), 16, 14, size - bottom);
  dots.forEach((d, i) => {
    const hue = i % HUES;
    parts.push(svg("path", { class: "s" + hue, "stroke-opacity": 0.5, d: `M${x(d.x - 1.96 * d.sx)} ${y(d.y)}H${x(d.x + 1.96 * d.sx)}M${x(d.x)} ${y(d.y - 1.96 * d.sy)}V${y(d.y + 1.96 * d.sy)}` }),
      svg("path", { class: "axis", d: `M${x(d.x)} ${y(d.y)}L${size + 4} ${rows[i]}`, "stroke-dasharray": "1 3" }),
      svg("circle", { class: "f" + hue, cx: x(d.x), cy: y(d.y), r: 5 }, svg("title", {}, `${d.name}: dev ${signed(d.x)}, unseen ${signed(d.y)}`)), label(size + 8, rows[i] + 4, d.name));
  });
  return chart(size + right, size, "Gain on dev against gain on unseen by skill: " + dots.map((d) => `${d.name} ${signed(d.x)}, ${signed(d.y)}`).join("; "), ...parts);
}

/** Chooses the ticks 1, 2 and 5 times a power of ten between two positive values; a narrow range gets even ticks. */
function logTicks(low, high) {
  const out = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) out.push(...[1, 2, 5].map((m) => m * power).filter((v) => v >= low && v <= high));
  return out.length > 1 ? out : ticks(low, high, 4).filter((v) => v > 0);
}

/** Draws scores with error bars over tokens on a logarithmic axis: dots are {name, x, y, lo, hi}. */
function drawTokens(title, dots) {
  const [width, height, left, bottom, right] = [620, 330, 46, 42, 190];
  const xs = dots.map((d) => Math.max(d.x, 0.5));
  const ys = dots.flatMap((d) => [d.y, d.lo ?? d.y, d.hi ?? d.y]);
  const [x0, x1] = [Math.min(...xs) / 1.15, Math.max(...xs) * 1.15];
  const pad = (Math.max(...ys) - Math.min(...ys)) * 0.08 || 0.02;
  const [y0, y1] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const x = (v) => left + (Math.log(Math.max(v, 0.5) / x0) / Math.log(x1 / x0)) * (width - left - right);
  const y = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - bottom - 12);
  const parts = ticks(y0, y1).flatMap((t) => [svg("path", { class: "axis", d: `M${left} ${y(t)}H${width - right}` }), label(left - 6, y(t) + 4, points(t, 0), { "text-anchor": "end", class: "soft" })]);
  for (const t of logTicks(x0, x1)) parts.push(svg("path", { class: "axis", d: `M${x(t)} ${height - bottom}v5` }), label(x(t), height - bottom + 18, count(t), { "text-anchor": "middle", class: "soft" }));
  parts.push(label((left + width - right) / 2, height - 6, "tokens per answer", { "text-anchor": "middle" }));
  const most = Math.floor((height - bottom) / 15); // rows of names; others have theirs as a title
  const named = dots.map((d, i) => i).slice(0, most);
  const rows = spread(named.map((i) => y(dots[i].y)), 15, 12, height - bottom);
  dots.forEach((d, i) => {
    const hue = i % HUES;
    if (d.lo !== undefined && d.lo !== null) parts.push(svg("path", { class: "s" + hue, "stroke-opacity": 0.45, d: `M${x(d.x)} ${y(d.lo)}V${y(d.hi)}` }));
    if (i < most) parts.push(svg("path", { class: "axis", d: `M${x(d.x)} ${y(d.y)}L${width - right + 4} ${rows[i]}`, "stroke-dasharray": "1 3" }), label(width - right + 8, rows[i] + 4, d.name.length > 26 ? d.name.slice(0, 25) + "…" : d.name));
    parts.push(svg("circle", { class: "f" + hue, cx: x(d.x), cy: y(d.y), r: 5 }, svg("title", {}, `${d.name}: ${points(d.y)}${bounds(d)} for ${count(d.x)} tokens per answer`)));
  });
  return chart(width, height, `${title} against tokens per answer: ` + dots.map((d) => `${d.name} ${points(d.y)} for ${count(d.x)}`).join("; "), ...parts);
}

/** Draws lines over a numeric axis: series are {name, points: [[x, y, lo, hi]]}, y as fractions. */
function drawLines(title, series, xName, format = points) {
  const [width, height, left, bottom, right] = [480, 280, 46, 38, 120];
  const all = series.flatMap((s) => s.points);
  const xs = all.map((p) => p[0]);
  const ys = all.flatMap((p) => [p[1], p[2] ?? p[1], p[3] ?? p[1]]);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const pad = (Math.max(...ys) - Math.min(...ys)) * 0.08 || 0.02;
  const [y0, y1] = [Math.min(...ys) - pad, Math.max(...ys) + pad];
  const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - right);
  const y = (v) => height - bottom - ((v - y0) / (y1 - y0)) * (height - bottom - 12);
  const parts = ticks(y0, y1).flatMap((t) => [svg("path", { class: "axis", d: `M${left} ${y(t)}H${width - right}` }), label(left - 6, y(t) + 4, format(t, 0), { "text-anchor": "end", class: "soft" })]);
  const marks = xName === "step" ? ticks(x0, x1, 4).map((t) => [t, String(t)]) : series[0].labels.map((text, i) => [i, text]);
  for (const [t, text] of marks) parts.push(label(x(t), height - 18, text, { "text-anchor": "middle", class: "soft" }));
  parts.push(label((left + width - right) / 2, height - 3, xName, { "text-anchor": "middle", class: "soft" }));
  const ends = spread(series.map((s) => y(s.points.at(-1)[1])), 14, 10, height - bottom);
  series.forEach((s, i) => {
    const hue = i % HUES;
    const dash = ["", "6 3", "2 3"][Math.floor(i / HUES) % 3];
    for (const p of s.points) if (p[2] !== undefined && p[2] !== null) parts.push(svg("path", { class: "s" + hue, "stroke-opacity": 0.35, d: `M${x(p[0])} ${y(p[2])}V${y(p[3])}` }));
    parts.push(svg("path", { class: "s" + hue, fill: "none", "stroke-width": 2, "stroke-dasharray": dash || null, d: "M" + s.points.map((p) => `${x(p[0])} ${y(p[1])}`).join("L") }));
    for (const p of s.points) parts.push(svg("circle", { class: "f" + hue, cx: x(p[0]), cy: y(p[1]), r: 3.5 }, svg("title", {}, `${s.name}${xName === "step" ? `, step ${p[0]}` : ""}: ${format(p[1])}${bounds({ lo: p[2], hi: p[3] })}`)));
    parts.push(label(width - right + 8, ends[i] + 4, s.name.length > 18 ? s.name.slice(0, 17) + "…" : s.name));
  });
  return chart(width, height, `${title}: ` + series.map((s) => `${s.name} ${s.points.map((p) => format(p[1])).join(", ")}`).join("; "), ...parts);
}

/** Moves positions apart so that neighbours are at least `gap` apart. */
function spread(positions, gap, low, high) {
  const order = positions.map((v, i) => [v, i]).sort((a, b) => a[0] - b[0]);
  const out = new Array(positions.length);
  let next = low;
  for (const [v, i] of order) { out[i] = Math.max(v, next); next = out[i] + gap; }
  const over = Math.max(0, next - gap - high);
  return out.map((v) => v - over);
}

/** Draws groups of horizontal bars with error bars: groups are {name, bars: [{name, value, lo, hi}]}. */
function drawBars(title, groups) {
  const [left, width, bar] = [130, 560, 15];
  const parts = [];
  let top = 6;
  const x = (v) => left + v * (width - left - 52);
  for (const group of groups) {
    parts.push(label(left - 8, top + (group.bars.length * bar) / 2 + 4, group.name, { "text-anchor": "end" }));
    group.bars.forEach((b, i) => {
      const y = top + i * bar;
      if (b.value === null) { parts.push(label(left + 2, y + 11, "–", { class: "soft" })); return; }
      parts.push(svg("rect", { class: "f" + (b.hue % HUES), "fill-opacity": 0.75, x: left, y: y + 1, width: Math.max(1, x(b.value) - left), height: bar - 3, rx: 2 }, svg("title", {}, `${group.name}, ${b.name}: ${points(b.value)}${bounds(b)}`)));
      if (b.lo !== undefined) parts.push(svg("path", { stroke: "currentColor", d: `M${x(b.lo)} ${y + bar / 2 - 0.5}H${x(b.hi)}` }));
      parts.push(label(Math.max(x(b.value), b.hi === undefined ? 0 : x(b.hi)) + 5, y + 11, points(b.value), { class: "soft", "font-size": 11 }));
    });
    top += group.bars.length * bar + 9;
  }
  return chart(width, top, title, svg("path", { class: "axis", d: `M${left} 0V${top}` }), ...parts);
}
