// The policy's table: a threshold is dragged in its row or in its curve, and what past studies would have been follows.
// Nothing here decides anything: the server decides past films by the readers' own functions, this page draws.

const PAUSE = 50; // ms after the last edit until the server is asked
const DECADES = 3; // of odds on either side of one half: thresholds from 0.001 to 0.999
const STEPS = 100; // of a slider, to a decade
const SVG = "http://www.w3.org/2000/svg";
const page = document.querySelector("main.policy");
const form = document.getElementById("policy-form");
const rows = [...form.querySelectorAll("tr[data-output]")];
const may = form.dataset.may === "yes";
let curves = null; // by output
let chosen = rows[0];
let shares = {}; // by output, of the latest preview
let asking = null;
let waiting = 0;

const odds = (p) => Math.log10(p / (1 - p));
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const position = (p) => clamp(Math.round((odds(p) + DECADES) * STEPS), 0, 2 * DECADES * STEPS);
const probability = (steps) => Number((1 / (1 + 10 ** (DECADES - steps / STEPS))).toPrecision(3));
const short = (x) => Number(x.toPrecision(3)).toString();
const share = (x) => (x === null || x === undefined ? "" : x.toFixed(2));
const select = (row) => row.querySelector("select");
const field = (row) => row.querySelector(".point input");
const slider = (row) => row.querySelector("input[type=range]");
const nameOf = (row) => row.querySelector(".pick").textContent;
const cardOf = (row) => curves?.[row.dataset.output].card_threshold ?? (Number(row.dataset.card) || null);

function thresholdOf(row) {
  const written = Number(field(row).value.trim().replace(",", "."));
  return written > 0 && written < 1 ? written : cardOf(row);
}

function draft() {
  const findings = {};
  let binary = null;
  for (const row of rows) {
    const written = field(row).value.trim().replace(",", ".");
    const rule = { urgency: select(row).value, threshold: written === "" || written === "card" ? "card" : written };
    if (row.dataset.output === "binary") binary = rule;
    else findings[row.dataset.output] = rule;
  }
  const budget = form.elements.budget.value.trim().replace(",", ".");
  return { findings, binary, on_disagreement: form.elements.on_disagreement.value, budget: budget || null };
}

function budgetOf() {
  const written = Number(form.elements.budget.value.trim().replace(",", "."));
  return written > 0 ? written : null;
}

// Drawing

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function text(x, y, words, attributes = {}) {
  return svg("text", { x, y, ...attributes }, document.createTextNode(words));
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A round number just above `most`, to draw up to.
function ceiling(most) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(most, 1e-9)));
  return [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= most);
}

const BOX = { width: 560, left: 34, right: 84, top: 10, upper: 168, gap: 26, lower: 78 };
const plotWidth = BOX.width - BOX.left - BOX.right;
const xOf = (p) => BOX.left + (plotWidth * (clamp(odds(p), -DECADES, DECADES) + DECADES)) / (2 * DECADES);
const thresholdAt = (x) => probability(clamp(Math.round(((x - BOX.left) / plotWidth) * 2 * DECADES * STEPS), 0, 2 * DECADES * STEPS));

function line(points, name) {
  const d = points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  return svg("path", { d, class: `line ${name}` });
}

function drawCurve() {
  const holder = document.getElementById("curve");
  const curve = curves?.[chosen.dataset.output];
  document.getElementById("curve-name").textContent = nameOf(chosen)[0].toUpperCase() + nameOf(chosen).slice(1);
  for (const row of rows) row.querySelector(".pick").setAttribute("aria-pressed", String(row === chosen));
  if (!curve) return;
  const at = thresholdOf(chosen);
  const bottom = BOX.top + BOX.upper;
  const floor = bottom + BOX.gap + BOX.lower;
  const budget = budgetOf();
  const flagsMost = ceiling(Math.max(curve.flags_per_hour[0], budget ?? 0, 0.01));
  const yShare = (v) => bottom - v * BOX.upper;
  const yFlags = (v) => floor - (clamp(v, 0, flagsMost) / flagsMost) * BOX.lower;
  const parts = [];
  for (const v of [0, 0.5, 1]) {
    parts.push(svg("line", { x1: BOX.left, x2: BOX.left + plotWidth, y1: yShare(v), y2: yShare(v), class: "grid" }));
    parts.push(text(BOX.left - 6, yShare(v) + 4, v, { class: "tick", "text-anchor": "end" }));
  }
  for (const v of [0, flagsMost]) {
    parts.push(svg("line", { x1: BOX.left, x2: BOX.left + plotWidth, y1: yFlags(v), y2: yFlags(v), class: "grid" }));
    parts.push(text(BOX.left - 6, yFlags(v) + 4, short(v), { class: "tick", "text-anchor": "end" }));
  }
  for (const p of [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]) {
    parts.push(text(xOf(p), floor + 16, p, { class: "tick", "text-anchor": "middle" }));
  }
  const series = [
    ["sensitivity", (g) => g.sensitivity.value],
    ["specificity", (g) => g.specificity.value],
    ["ppv", (g) => g.ppv],
  ];
  const names = [];
  for (const [name, value] of series) {
    const points = curve.goodness
      .map((g, n) => [curve.thresholds[n], g && value(g)])
      .filter(([, v]) => v !== null)
      .map(([t, v]) => [xOf(t), yShare(v)]);
    if (!points.length) continue;
    if (points.length > 1) parts.push(line(points, name));
    names.push({ name, y: points.at(-1)[1] });
  }
  if (!names.length) {
    parts.push(text(BOX.left + plotWidth / 2, yShare(0.5) - 6, "not measured", { class: "tick", "text-anchor": "middle" }));
  }
  names.sort((a, b) => a.y - b.y);
  names.forEach((each, n) => {
    if (n) each.y = Math.max(each.y, names[n - 1].y + 13);
  });
  const over = names.length ? Math.max(0, names.at(-1).y - bottom) : 0;
  for (const { name, y } of names) {
    const words = name === "ppv" ? "PPV" : name;
    parts.push(text(BOX.left + plotWidth + 6, y - over + 4, words, { class: `name ${name}` }));
  }
  for (const t of curve.measured_at) {
    const nearest = curve.goodness[curve.thresholds.indexOf(t)];
    for (const [name, value] of nearest ? series.slice(0, 2) : []) {
      parts.push(svg("circle", { cx: xOf(t), cy: yShare(value(nearest)), r: 3, class: `measured ${name}` }));
    }
  }
  parts.push(line(curve.thresholds.map((t, n) => [xOf(t), yFlags(curve.flags_per_hour[n])]), "flags"));
  parts.push(text(BOX.left + plotWidth + 6, floor - 4, "flags an hour", { class: "name flags" }));
  if (budget !== null) {
    const y = yFlags(budget);
    parts.push(svg("line", { x1: BOX.left, x2: BOX.left + plotWidth, y1: y, y2: y, class: "budget" }));
    parts.push(text(BOX.left + plotWidth + 6, Math.min(y + 4, floor - 18), "budget", { class: "name budget" }));
  }
  if (at) {
    const x = xOf(at);
    parts.push(svg("line", { x1: x, x2: x, y1: BOX.top, y2: floor, class: "marker" }));
    parts.push(svg("circle", { cx: x, cy: BOX.top, r: 5, class: "knob" }));
    const anchor = x > BOX.left + plotWidth * 0.8 ? "end" : "start";
    parts.push(text(x + (anchor === "end" ? -9 : 9), BOX.top + 4, short(at), { class: "name marker", "text-anchor": anchor }));
  }
  const words = curveWords(curve, at);
  const drawn = svg("svg", { viewBox: `0 0 ${BOX.width} ${floor + 24}`, role: "img", "aria-label": words.figures }, ...parts);
  if (may) drawn.classList.add("draggable");
  holder.replaceChildren(drawn);
  document.getElementById("curve-words").replaceChildren(element("span", { class: "curve-figures" }, words.figures), ` ${words.source}`);
}

function rate(value) {
  const interval = value.low === null || value.high === null ? "" : ` (${share(value.low)} to ${share(value.high)})`;
  return `${share(value.value)}${interval}`;
}

function curveWords(curve, at) {
  if (!at) return { figures: "", source: "" };
  const known = shares[chosen.dataset.output]?.goodness;
  const found = curve.thresholds.findIndex((t) => t >= at);
  const flags = curve.flags_per_hour[found < 0 ? curve.flags_per_hour.length - 1 : found];
  const many = `${short(flags)} flags an hour by it alone.`;
  if (!known) return { figures: `From ${short(at)} on: ${many}`, source: `How good it is there is not known: ${curve.words}.` };
  const ppv = known.ppv === null ? "" : `, PPV ${share(known.ppv)}`;
  const often = curve.prevalence === null ? "" : ` PPV where ${(100 * curve.prevalence).toFixed(1)} % have it (${curve.prevalence_words}).`;
  const figures = `From ${short(at)} on: sensitivity ${rate(known.sensitivity)}, specificity ${rate(known.specificity)}${ppv}; ${many}`;
  return { figures, source: `Sensitivity and specificity: ${curve.words}.${often}` };
}

function drawBars(id, title, spans, budget) {
  const width = 560, height = 92, left = 34, foot = 16, top = 18;
  const most = ceiling(Math.max(...spans.map((s) => Math.max(s.before, s.after)), budget ?? 0, 0.01));
  const step = (width - left) / spans.length;
  const y = (v) => height - foot - (v / most) * (height - foot - top);
  const parts = [
    text(left, 11, title, { class: "tick" }),
    text(left - 6, y(most) + 4, short(most), { class: "tick", "text-anchor": "end" }),
    text(left - 6, y(0) + 4, "0", { class: "tick", "text-anchor": "end" }),
    svg("line", { x1: left, x2: width, y1: y(0), y2: y(0), class: "grid" }),
  ];
  spans.forEach((span, n) => {
    const x = left + n * step;
    const bar = Math.max(2, step * 0.36);
    const words = `${span.name}: ${short(span.before)} under the policy in force, ${short(span.after)} as edited`;
    const pair = [
      ["before", span.before, x + step * 0.12],
      ["after", span.after, x + step * 0.12 + bar],
    ].map(([name, value, at]) =>
      svg("rect", { x: at.toFixed(1), y: y(value).toFixed(1), width: bar.toFixed(1), height: Math.max(0, y(0) - y(value)).toFixed(1), class: `bar ${name}` }),
    );
    parts.push(svg("g", {}, svg("title", {}, document.createTextNode(words)), ...pair));
    if (spans.length < 20 || n % 3 === 0) parts.push(text(x + step / 2, height - 3, span.name, { class: "tick", "text-anchor": "middle" }));
  });
  if (budget !== null) {
    parts.push(svg("line", { x1: left, x2: width, y1: y(budget), y2: y(budget), class: "budget" }));
    parts.push(text(width, y(budget) - 4, "budget", { class: "name budget", "text-anchor": "end" }));
  }
  const total = (side) => short(spans.reduce((sum, s) => sum + s[side], 0));
  const label = `${title}: ${total("before")} in all under the policy in force, ${total("after")} as edited`;
  document.getElementById(id).replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...parts));
}

function fact(words, before, after, more = "") {
  const parts = [element("dt", {}, words), element("dd", {}, element("span", { class: "quiet" }, `${before} → `), element("strong", {}, String(after)), more)];
  return element("div", {}, ...parts);
}

function show(preview) {
  shares = preview.shares;
  for (const row of rows) {
    const found = shares[row.dataset.output];
    const raises = found.before === found.after ? `${found.after || ""}` : `${found.before} → ${found.after}`;
    const cells = {
      reached: found.reached,
      raises,
      sensitivity: share(found.goodness?.sensitivity.value),
      specificity: share(found.goodness?.specificity.value),
      ppv: share(found.goodness?.ppv),
    };
    for (const [name, value] of Object.entries(cells)) row.querySelector(`[data-cell=${name}]`).textContent = value;
  }
  const { before, after } = preview;
  const budget = budgetOf();
  const facts = element("dl", { class: "facts" });
  const over = budget === null ? "" : after.per_hour > budget ? " over the budget" : " within the budget";
  const perHour = fact("flags an hour", before.per_hour.toFixed(2), after.per_hour.toFixed(2), over);
  if (over === " over the budget") perHour.classList.add("alarm");
  facts.append(
    fact("flags", before.raised, after.raised),
    fact("STAT", before.urgencies.STAT, after.urgencies.STAT),
    fact("URGENT", before.urgencies.URGENT, after.urgencies.URGENT),
    perHour,
    fact("busiest hour", before.busiest, after.busiest),
  );
  const changes = `${preview.gained} gain a flag, ${preview.lost} lose it, ${preview.other_urgency} have another urgency`;
  document.getElementById("preview").replaceChildren(facts, element("p", {}, changes));
  document.getElementById("preview-words").replaceChildren(
    `${preview.studies} studies from ${preview.since.slice(0, 16).replace("T", " ")} to ${preview.until.slice(0, 16).replace("T", " ")} UTC, decided anew from their stored probabilities. That a study would not have been raised is no all-clear.`,
  );
  drawBars("days-chart", "flags by day", preview.days, budget === null ? null : budget * 24);
  drawBars("hours-chart", "flags by hour of the day, on average", preview.hours, budget);
  showChanged(preview);
  drawCurve();
}

function flagWords(flag) {
  if (flag === null) return element("span", { class: "quiet" }, "no flag");
  const name = flag.urgency.toLowerCase();
  const shape = svg("svg", { viewBox: "0 0 16 16", class: "shape", "aria-hidden": "true" });
  shape.append(rows[0].querySelector(`.mark-${name}`).cloneNode());
  return element("span", { class: `urgency urgency-${name}` }, shape, flag.urgency);
}

function showChanged(preview) {
  const table = document.getElementById("changed");
  const all = preview.gained + preview.lost + preview.other_urgency;
  const shown = preview.changed.length;
  document.getElementById("changed-count").textContent = all === 0 ? "none" : shown < all ? `the latest ${shown} of ${all}` : String(all);
  table.hidden = !shown;
  table.tBodies[0].replaceChildren(
    ...preview.changed.map((change) => {
      const flag = change.after ?? change.before;
      const link = element("a", { class: "uid out", href: `/studies/${change.study_uid}` }, `…${change.study_uid.slice(-16)}`);
      return element(
        "tr",
        {},
        element("td", { class: "state" }, flag.at.slice(0, 16).replace("T", " ")),
        element("td", {}, link),
        element("td", {}, flagWords(change.before)),
        element("td", {}, flagWords(change.after)),
        element("td", {}, flag.reasons.join("; ")),
      );
    }),
  );
}

// Asking

async function ask() {
  asking?.abort();
  asking = new AbortController();
  const query = new URLSearchParams({ days: page.dataset.days });
  if (may) query.set("policy", JSON.stringify(draft())); // whoever only looks sees the one in force
  try {
    const answer = await fetch(`/api/v1/policies/preview?${query}`, { signal: asking.signal });
    if (answer.status === 401) return location.reload();
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    document.getElementById("preview").classList.remove("faulty");
    show(found);
    page.dataset.shown = String(Number(page.dataset.shown ?? 0) + 1);
  } catch (error) {
    if (error.name === "AbortError") return;
    const words = error instanceof TypeError ? "hilum does not answer" : error.message;
    document.getElementById("preview").classList.add("faulty");
    document.getElementById("preview").replaceChildren(words);
  }
}

function edited() {
  for (const row of rows) settle(row);
  drawCurve();
  clearTimeout(waiting);
  waiting = setTimeout(ask, PAUSE);
}

function settle(row) {
  const at = thresholdOf(row);
  const urgency = select(row).value.toLowerCase();
  const card = cardOf(row);
  row.classList.remove("rule-stat", "rule-urgent", "rule-routine");
  row.classList.add(`rule-${urgency}`);
  const isOther = !select(row).selectedOptions[0].defaultSelected || field(row).value !== field(row).defaultValue;
  row.classList.toggle("edited", isOther);
  if (card) field(row).placeholder = short(card);
  row.querySelector(".to-card").hidden = field(row).value === "";
  if (at) {
    slider(row).value = String(position(at));
    slider(row).setAttribute("aria-valuetext", short(at));
  }
}

function choose(row) {
  if (chosen === row) return;
  chosen = row;
  drawCurve();
}

function setThreshold(row, p) {
  field(row).value = short(p);
  edited();
}

form.addEventListener("input", (event) => {
  const row = event.target.closest("tr[data-output]");
  if (row) choose(row);
  if (row && event.target === slider(row)) field(row).value = short(probability(Number(event.target.value)));
  if (event.target.name !== "note") edited();
});
form.addEventListener("focusin", (event) => {
  const row = event.target.closest("tr[data-output]");
  if (row) choose(row);
});
form.addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-output]");
  if (!row) return;
  choose(row);
  if (event.target.closest(".to-card") && may) {
    field(row).value = "";
    edited();
  }
});
form.addEventListener("reset", () => setTimeout(edited));
// Enter in a number asks for the preview; only the button proposes.
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input") && event.target.name !== "note") event.preventDefault();
});

const curveHolder = document.getElementById("curve");
function drag(event) {
  const drawn = curveHolder.querySelector("svg");
  if (!may || !drawn || !curves) return;
  const box = drawn.getBoundingClientRect();
  setThreshold(chosen, thresholdAt(((event.clientX - box.left) / box.width) * BOX.width));
}
curveHolder.addEventListener("pointerdown", (event) => {
  if (!may || event.button !== 0) return;
  curveHolder.setPointerCapture(event.pointerId);
  drag(event);
});
curveHolder.addEventListener("pointermove", (event) => {
  if (curveHolder.hasPointerCapture(event.pointerId)) drag(event);
});

async function begin() {
  const answer = await fetch(`/api/v1/policies/curves?days=${encodeURIComponent(page.dataset.days)}`);
  if (answer.status === 401) return location.reload();
  if (answer.ok) {
    curves = await answer.json();
    for (const row of rows) slider(row).disabled = !may;
  }
  chosen = rows.find((row) => select(row).value !== "ROUTINE") ?? rows[0];
  for (const row of rows) settle(row);
  await ask();
}
begin();
