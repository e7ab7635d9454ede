// The page: polls its data once a second and shows them, whatever the subject.  Untrusted texts become only text nodes
// and attributes.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000, HEIGHT = 200; // of a drawing, in its own units
const SHORTEST = 60; // seconds, minimum span of a chart
const GAP = 2.5; // seconds between two snapshots, above which the line is interrupted

const $ = (id) => document.getElementById(id);
const number = (value, digits = 0) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const limited = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });
const short = (value) => (value < 1e5 ? limited(value) : value.toLocaleString("en", { notation: "compact" }));

// Make an element with attributes and children; null attributes are left out.
function make(name, attributes = {}, ...children) {
  const made = attributes.svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (key !== "svg" && value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const drawn = (name, attributes = {}, ...children) => make(name, { svg: true, ...attributes }, ...children);

// Change a text only if it differs, so that a selection and a screen reader keep their place.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Replace the children, unless they are the same.
function place(parent, wanted) {
  if (wanted.length !== parent.children.length || wanted.some((one, index) => one !== parent.children[index]))
    parent.replaceChildren(...wanted);
}

// Charts

// Return the marks of an axis from 0: steps of 1, 2, 2.5 or 5 times a power of ten.
function marks(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  const step = [0.5, 1, 2, 2.5, 5, 10].map((lead) => lead * power).find((one) => most <= 3 * one);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => index * step);
}

class Chart {
  constructor() {
    this.title = make("h3");
    this.now = make("span", { class: "big" });
    this.of = make("span", { class: "note" });
    this.note = make("p", { class: "note" });
    this.picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.ys = make("div", { class: "ys", "aria-hidden": "true" });
    this.start = make("span", { class: "start" });
    const xs = make("div", { class: "xs", "aria-hidden": "true" }, this.start, make("span", { class: "end" }, "now"));
    const plot = make("div", { class: "plot" }, this.ys, make("div", { class: "canvas" }, this.picture), xs);
    const caption = make("figcaption", {}, this.title, make("p", {}, this.now, this.of), this.note);
    this.element = make("figure", { class: "chart" }, caption, plot);
  }

  show(chart, at, span) {
    const { past } = chart;
    const all = at.map((_, index) => (past.passed[index] ?? 0) + (past.refused[index] ?? 0));
    const peak = Math.max(...all, 0), refused = Math.max(...past.refused.map((value) => value ?? 0), 0);
    const top = 1.12 * Math.max(peak, ...past.limit.map((value) => value ?? 0), 1);
    const rate = chart.passed + chart.refused;
    say(this.title, chart.title);
    say(this.now, number(rate, 1));
    say(this.of, ` calls/s of ${chart.limit === null ? "any number" : limited(chart.limit)}`);
    say(this.note, chart.note);
    const minutes = `${limited(span / 60)} minute${span > 60 ? "s" : ""}`;
    say(this.start, `${minutes} ago`);
    const bound = chart.limit === null ? "no limit" : `the limit is ${limited(chart.limit)}`;
    this.picture.setAttribute(
      "aria-label",
      `${chart.title}, calls per second over ${minutes}: now ${number(rate, 1)}, ` +
        `maximum ${number(peak, 1)}, maximum refused ${number(refused, 1)}; ${bound}`,
    );
    const x = (index) => (WIDTH * (1 + at[index] / span)).toFixed(1);
    const y = (value) => (HEIGHT * (1 - value / top)).toFixed(1);
    const lines = marks(top);
    this.ys.replaceChildren(
      ...lines.map((mark) => {
        const label = make("span", {}, short(mark));
        label.style.top = `${100 * (1 - mark / top)}%`;
        return label;
      }),
    );
    const shapes = [
      drawn("rect", { class: "ground", width: WIDTH, height: HEIGHT }),
      ...lines.map((mark) => drawn("path", { class: "grid", d: `M0 ${y(mark)}H${WIDTH}` })),
    ];
    for (const run of runs(at, all.map((value, index) => (past.passed[index] === null ? null : value)))) {
      const points = run.map(([index, value]) => `${x(index)},${y(value)}`).join(" ");
      const ends = [x(run.at(-1)[0]), x(run[0][0])];
      shapes.push(drawn("polygon", { class: "area done", points: `${points} ${ends[0]},${HEIGHT} ${ends[1]},${HEIGHT}` }));
      shapes.push(drawn("polyline", { class: "line done", points }));
    }
    const bars = at.map((_, i) => (past.refused[i] ? `M${x(i)} ${y(all[i])}V${y(past.passed[i])}` : "")).join("");
    if (bars) shapes.push(drawn("path", { class: "bars", d: bars }));
    for (const name of ["limit", "adaptive"])
      for (const run of runs(at, past[name])) {
        const points = run.map(([index, value]) => `${x(index)},${y(value)}`);
        if (points.length === 1) points.push(points[0]);
        shapes.push(drawn("polyline", { class: `line ${name}`, points: points.join(" ") }));
      }
    this.picture.replaceChildren(...shapes);
  }
}

// Return the uninterrupted runs of values, each as [index, value] pairs.
function runs(at, values) {
  const found = [];
  let last = null;
  values.forEach((value, index) => {
    if (value !== null) {
      if (last === null || at[index] - at[last] > GAP) found.push([]);
      found.at(-1).push([index, value]);
    }
    last = value === null ? null : index;
  });
  return found;
}

const charts = new Map();

function showCharts({ charts: given, at, span: longest }) {
  const span = Math.min(longest, Math.max(SHORTEST, -at[0]));
  const wanted = given.map((chart) => {
    if (!charts.has(chart.key)) charts.set(chart.key, new Chart());
    const shown = charts.get(chart.key);
    shown.show(chart, at, span);
    return shown.element;
  });
  place($("charts"), wanted);
  $("rates").hidden = !wanted.length;
  $("adaptive").hidden = !given.some((chart) => chart.past.adaptive.some((value) => value !== null));
}

// Tables

const texts = {
  text: (cell) => `${cell}`,
  number: (cell) => `${cell}`,
  count: (cell) => limited(cell),
  rate: (cell) => number(cell, 1),
  share: (cell) => `${number(100 * cell)} %`,
};

// The roles are explicit because the layout for phones, which is no table, removes the implicit ones.
class Table {
  constructor(table) {
    this.kinds = Object.entries(table.columns);
    const heads = this.kinds.map(([name, kind]) =>
      make("th", { scope: "col", role: "columnheader", class: kind === "text" ? null : "n" }, name),
    );
    this.body = make("tbody", { role: "rowgroup" });
    this.table = make(
      "table",
      { role: "table" },
      make("caption", {}, make("h2", {}, table.title)),
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)),
      this.body,
    );
    this.none = make("p", { class: "none" });
    this.element = make("section", { class: "figures-of" }, this.table, this.none);
  }

  show(table) {
    const rows = table.sum === null || !table.rows.length ? table.rows : [...table.rows, table.sum];
    while (this.body.rows.length > rows.length) this.body.rows[rows.length].remove();
    while (this.body.rows.length < rows.length) this.body.append(this.row());
    rows.forEach((row, index) => {
      const shown = this.body.rows[index];
      shown.classList.toggle("sum", table.sum !== null && index === rows.length - 1);
      row.forEach((cell, column) => this.fill(shown.cells[column], cell, this.kinds[column][1]));
    });
    say(this.none, rows.length ? "" : table.none);
  }

  row() {
    const cells = this.kinds.map(([name, kind], index) =>
      index
        ? make("td", { role: "cell", class: kind === "text" ? null : "n", "data-is": name })
        : make("th", { role: "rowheader", scope: "row" }),
    );
    return make("tr", { role: "row" }, ...cells);
  }

  fill(element, cell, kind) {
    const text = cell === null ? "" : texts[kind](cell);
    if (element.textContent === text) return;
    element.textContent = text;
    if (kind !== "share") return;
    const part = drawn("rect", { class: "part", width: 100 * cell, height: 10 });
    element.append(
      drawn(
        "svg",
        { class: "meter", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        drawn("rect", { class: "ground", width: 100, height: 10 }),
        part,
      ),
    );
  }
}

const tables = new Map();

function showTables(given) {
  const wanted = given.map((table) => {
    if (!tables.has(table.title)) tables.set(table.title, new Table(table));
    const shown = tables.get(table.title);
    shown.show(table);
    return shown.element;
  });
  place($("tables"), wanted);
}

// Faults

const VALUES = { code: ["ErrorCode", "10002"], http: ["HTTP status", "502"], delay: ["Seconds", "1"] };
let active = "";

function showFaults(faults) {
  $("faults").hidden = faults === null;
  if (faults === null) return;
  const endpoints = $("inject").elements.endpoint;
  if (endpoints.options.length === 1) endpoints.append(...faults.endpoints.map((name) => make("option", {}, name)));
  const now = JSON.stringify(faults.active);
  if (now === active) return;
  active = now;
  $("active").replaceChildren(
    ...faults.active.map((fault) => {
      const share = limited(100 * fault.share);
      const text = `${fault.kind}: ${share} % of the calls of ${fault.endpoint}`;
      const button = make("button", { type: "button", "aria-label": `Clear ${text}` }, "Clear");
      button.addEventListener("click", () => act({ clear: fault.text }, `Cleared ${fault.text}.`));
      return make("li", {}, make("span", {}, text), button);
    }),
  );
  $("no-faults").hidden = faults.active.length > 0;
  $("clear-all").hidden = faults.active.length < 2;
}

async function act(action, done) {
  let refusal = null;
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch("act", { method: "POST", headers, body: JSON.stringify(action) });
    if (!answer.ok) refusal = (await answer.text()).trim();
  } catch {
    refusal = "The command is not responding.";
  }
  $("result").classList.toggle("refused", refusal !== null);
  say($("result"), refusal ?? done);
  await update();
  // The pressed button was removed with its fault.
  if ("clear" in action) $("result").focus();
}

function prepareForm() {
  const form = $("inject"), { kind, value, share, endpoint } = form.elements;
  const label = $("valued").firstElementChild;
  kind.addEventListener("change", () => {
    const [name, text] = VALUES[kind.value] ?? ["", ""];
    $("valued").hidden = !name;
    say(label, name);
    value.value = text;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const of = { code: value.value, http: `http-${value.value}`, delay: `delay-${value.value}` };
    const where = endpoint.value && `@${endpoint.value}`;
    const text = `${(of[kind.value] ?? kind.value).trim()}=${share.value.trim()}%${where}`;
    act({ inject: text }, `Injected ${text}.`);
  });
  $("clear-all").addEventListener("click", () => act({ clear: null }, "Cleared all faults."));
}

// The whole page

let shown = null; // the time of the last snapshot that arrived

async function update() {
  try {
    const answer = await fetch("data");
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
  } catch {
    const since = shown === null ? "" : `; showing data from ${shown}`;
    complain(`The command has ended or is not responding${since}.`);
  }
}

function show(data) {
  shown = new Date(1000 * data.time).toLocaleTimeString();
  say($("name"), data.name);
  say($("address"), data.address);
  say($("clock"), `Live, ${shown}.${data.note ? ` ${data.note}` : ""}`);
  document.title = `${data.name} ${data.address}`;
  complain(data.trouble && `${data.trouble}; showing data from ${shown}.`);
  showCharts(data);
  showTables(data.tables);
  showFaults(data.faults);
}

function complain(text) {
  say($("trouble"), text);
  $("trouble").hidden = !text;
  $("clock").hidden = Boolean(text);
}

async function watch() {
  if (!document.hidden) await update();
  setTimeout(watch, 1000);
}

prepareForm();
watch();
