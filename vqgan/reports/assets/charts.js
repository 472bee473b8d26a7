// Charts: drawn by Plotly, what is in view first, and drawn again when what they depend on changes.

const charts = [];
const touch = matchMedia("(pointer: coarse)").matches;
const RUN_DASHES = ["solid", "dash", "dashdot"];
const COLOURS = 6; // as many as page.css has

/** The colours of the page as it is now, light or dark. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return { text: read("text"), faint: read("faint"), grid: read("grid"), page: read("page"), line: (n) => read(`line-${n % COLOURS}`) };
}

/** How the lines of a run look: by colour, and by dashes once colours come again. */
function lineOf(number, colours) {
  return { color: colours.line(number), dash: RUN_DASHES[Math.floor(number / COLOURS) % RUN_DASHES.length], width: 2 };
}

/** Text for Plotly, which would read tags in it. */
function plain(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/**
 * A chart in the page. `make(colours)` returns its `traces`, what its `x` and `y` axes have of their own, and the rest of
 * its layout. `on` has what to do at Plotly's events.
 */
function chart({ title, caption = "", tall = false, make, on = {} }) {
  const box = element("div", { class: tall ? "chart tall" : "chart", role: "group", "aria-label": `chart of ${title}` });
  const figure = element("figure", {}, element("h4", {}, title), element("figcaption", {}, caption), box);
  const made = { box, figure, make, on, stale: true, visible: false };
  charts.push(made);
  watcher.observe(box);
  watched.set(box, made);
  return made;
}

const watched = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) watched.get(entry.target).visible = entry.isIntersecting;
  redraw([]);
}, { rootMargin: "300px" });

let requested = false;
/** Draw again what has changed: at once what is in view, the rest one by one when there is nothing else to do. */
function redraw(changed = charts) {
  for (const one of changed) one.stale = true;
  if (requested) return;
  requested = true;
  requestAnimationFrame(() => {
    requested = false;
    charts.filter((one) => one.visible && one.stale).forEach(draw);
    whenIdle(drawNext);
  });
}

const whenIdle = window.requestIdleCallback ? (call) => requestIdleCallback(call, { timeout: 500 }) : (call) => setTimeout(call, 20);

function drawNext() {
  const next = charts.find((one) => one.stale);
  if (!next) return;
  draw(next);
  whenIdle(drawNext);
}

function draw(one) {
  const colours = theme();
  const { traces, x = {}, y = {}, ...own } = one.make(colours);
  const axis = { gridcolor: colours.grid, zerolinecolor: colours.grid, linecolor: colours.grid };
  const layout = {
    margin: { l: 58, r: 12, t: 30, b: 38 }, showlegend: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colours.faint, size: 12 },
    hovermode: traces.length > 6 ? "closest" : "x", hoverlabel: { bgcolor: colours.page, bordercolor: colours.faint, font: { color: colours.text }, namelength: 30 },
    dragmode: touch ? false : "zoom", // else a finger could not scroll the page
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.faint, activecolor: colours.text },
    xaxis: { ...axis, ...x }, yaxis: { ...axis, fixedrange: true, exponentformat: "power", ...y },
    ...own,
  };
  const first = !one.box.data;
  Plotly.react(one.box, traces, layout, {
    responsive: true, displaylogo: false, displayModeBar: "hover", doubleClick: "reset+autosize",
    modeBarButtons: [touch ? ["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"] : ["toImage", "resetScale2d"]],
  });
  if (first) for (const [event, act] of Object.entries(one.on)) one.box.on(event, act);
  one.stale = false;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { recolour(); redraw(); });
window.addEventListener("beforeprint", () => charts.filter((one) => one.stale).forEach(draw));

/** Colour samples in the page, which follow the theme as lines do. */
function swatch(number, dash = "solid") {
  return element("span", { class: "swatch", "data-line": number, "data-dash": dash, "aria-hidden": "true" });
}

function recolour() {
  const colours = theme();
  for (const sample of document.querySelectorAll(".swatch")) {
    sample.style.borderTopColor = colours.line(Number(sample.dataset.line));
    sample.style.borderTopStyle = { solid: "solid", dot: "dotted" }[sample.dataset.dash] || "dashed";
  }
}
