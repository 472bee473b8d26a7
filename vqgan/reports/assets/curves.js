// Curves: a chart for each metric, in groups by panel, with one smoothing, x-axis and zoom for all of them.

const view = { smoothing: 0.6, axis: "steps", log: false, range: null, hidden: new Set(), healthy: true };
const FEW = 20; // points; curves that have fewer are shown as they are
const PANELS = ["train", "validation", "codebook", "adversarial", "learning_rate", "speed"];
const TOGETHER = { // metrics that are read against each other
  "validation/psnr": ["validation/psnr", "validation/psnr_mean_colour"],
  "adversarial/logits": ["adversarial/logits_real", "adversarial/logits_fake"],
  "learning_rate": ["learning_rate/autoencoder", "learning_rate/discriminator"],
};
const MEANINGS = {
  "validation/psnr": "dB, higher is better",
  "validation/ssim": "1 is perfect",
  "validation/lpips": "perceptual distance, lower is better",
  "validation/usage": "share of the codes that validation clips use",
  "validation/perplexity": "as many codes, used alike, would be as varied",
  "validation/bits_per_pixel": "that the codes need, each written as shortly as its share allows",
  "codebook/perplexity": "of a training batch",
  "codebook/usage": "share of the codes chosen in recent steps",
  "codebook/dead": "codes that no validation clip uses",
  "adversarial/weight": "of the adversarial term, adapted to the others' gradients",
  "adversarial/logits": "the discriminator's scores; equal when it cannot tell",
  "speed/frames_per_second": "trained on",
  "speed/data_wait": "share of the time",
  "speed/reading": "share of the cores",
};

/**
 * The exponential moving average of a curve, corrected for its start; gaps stay gaps. It reaches back over the same part
 * of the curve however many points there are: at an amount of 1 over a tenth of it.
 */
function smoothed(values, amount) {
  const weight = Math.exp(-1 / (0.1 * amount ** 2 * values.length));
  let sum = 0, total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** A healthy run's curves, to lie behind; none over hours, which would be another machine's. */
function healthyTraces(metrics, colours) {
  if (!data.healthy || !view.healthy || view.axis !== "steps") return [];
  return metrics.map((metric, part) => [data.healthy.curves[metric], part]).filter(([curve]) => curve).map(([curve, part]) => ({
    x: curve.steps, y: curve.values, name: plain(`healthy ${data.healthy.recipe}`), mode: "lines", opacity: 0.45,
    line: { color: colours.faint, width: 4, dash: part ? "dot" : "solid" }, hovertemplate: "%{y:.5g}",
  }));
}

/** The lines of one chart: each run's curve of each metric in it. */
function traces(metrics, colours) {
  const found = healthyTraces(metrics, colours);
  runs.forEach((run, number) => metrics.forEach((metric, part) => {
    const curve = run.curves[metric];
    if (!curve || view.hidden.has(number)) return;
    const line = lineOf(several ? number : part, colours);
    if (part) line.dash = "dot";
    const name = plain([several ? run.label : null, metrics.length > 1 || !several ? metric.split("/").pop() : null].filter(Boolean).join(" · "));
    const common = { x: curve[view.axis], name, line, hovertemplate: "%{y:.5g}", mode: curve.values.length <= 2 * FEW ? "lines+markers" : "lines", marker: { size: 5 } };
    if (view.smoothing > 0 && curve.values.length >= FEW) {
      found.push({ ...common, y: curve.values, opacity: 0.28, hoverinfo: "skip", hovertemplate: undefined, line: { ...line, width: 1 }, mode: "lines" });
      found.push({ ...common, y: smoothed(curve.values, view.smoothing), mode: "lines" });
    } else found.push({ ...common, y: curve.values });
  }));
  return found;
}

/** The range of y in the part of x that is shown, so that a zoom in x makes use of the height. */
function heightOf(lines, log) {
  const [first, last] = view.range || whole();
  let low = Infinity, high = -Infinity;
  for (const { x, y } of lines) {
    x.forEach((at, n) => {
      if (y[n] === null || at === null || at < first || at > last) return;
      low = Math.min(low, y[n]);
      high = Math.max(high, y[n]);
    });
  }
  if (low > high) return {};
  if (log) [low, high] = [Math.log10(low), Math.log10(high)];
  const flat = high - low <= 1e-9 * Math.abs(high); // smoothing leaves rounding errors in a constant
  const room = flat ? (log ? 0.1 : Math.abs(high) * 0.06 || 1) : (high - low) * 0.06;
  return { range: [low - room, high + room] };
}

function curveChart(title, metrics) {
  const positive = runs.every((run) => metrics.every((metric) => [...(run.curves[metric]?.values ?? []), ...(data.healthy?.curves[metric]?.values ?? [])].every((value) => value === null || value > 0)));
  const made = chart({
    title, caption: MEANINGS[title] || "",
    on: { plotly_relayout: zoomed },
    make: (colours) => {
      const lines = traces(metrics, colours), log = view.log && positive;
      return {
        traces: lines,
        x: { title: { text: view.axis === "steps" ? "step" : "hours", standoff: 4 }, range: view.range || whole() },
        y: { type: log ? "log" : "linear", ...heightOf(lines, log) },
      };
    },
  });
  if (metrics.length > 1) {
    const names = metrics.map((metric, part) => element("span", {}, swatch(several ? 5 : part, part ? "dot" : "solid"), `${metric.split("/").pop()} `));
    made.figure.querySelector("figcaption").append(" ", ...names);
  }
  curveCharts.push(made);
  return made.figure;
}

/** All panels that runs have metrics of, the known ones first. */
function curveGroups() {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  const taken = new Set(Object.values(TOGETHER).flatMap((metrics) => metrics.filter((metric) => names.includes(metric))));
  const wanted = Object.entries(TOGETHER).map(([title, metrics]) => [title, metrics.filter((metric) => names.includes(metric))]);
  const single = names.filter((name) => !taken.has(name)).map((name) => [name, [name]]);
  const groups = new Map();
  for (const [title, metrics] of [...wanted.filter(([, metrics]) => metrics.length), ...single]) {
    const panel = title.split("/")[0];
    groups.set(panel, [...(groups.get(panel) || []), curveChart(title, metrics)]);
  }
  const order = ([panel]) => (PANELS.includes(panel) ? PANELS.indexOf(panel) : PANELS.length);
  return new Map([...groups].sort((a, b) => order(a) - order(b)));
}

/** The first and the last x of all curves. */
function extent() {
  const found = runs.flatMap((run) => Object.values(run.curves).flatMap((curve) => curve[view.axis])).filter((at) => at !== null);
  return [found.reduce((a, b) => Math.min(a, b), Infinity), found.reduce((a, b) => Math.max(a, b), -Infinity)];
}

/** The x that all charts show unless a part was chosen: the same, so that they can be read across. */
function whole() {
  const [low, high] = extent(), room = (high - low) * 0.02 || 1;
  return [low - room, high + room];
}

const curveCharts = [];
let fromSlider, toSlider;

/** Show a part of x in all charts of curves; `null` for all of it. */
function zoom(range) {
  view.range = range;
  const [low, high] = extent();
  const at = (x) => Math.round(Math.min(1, Math.max(0, (x - low) / (high - low || 1))) * 100);
  fromSlider.set(range ? at(range[0]) : 0);
  toSlider.set(range ? at(range[1]) : 100);
  redraw(curveCharts);
}

/** The same, when it was chosen in one of them. */
function zoomed(event) {
  const range = event["xaxis.range"] || [event["xaxis.range[0]"], event["xaxis.range[1]"]];
  if (event["xaxis.autorange"]) zoom(null);
  else if (typeof range[0] === "number") zoom(range);
}

function zoomBySliders() {
  const [low, high] = extent();
  const [from, to] = [Number(fromSlider.input.value), Number(toSlider.input.value)];
  if (from >= to) return;
  view.range = from === 0 && to === 100 ? null : [from, to].map((percent) => low + (high - low) * percent / 100);
  redraw(curveCharts);
}

/** What all curves have in common; `own` are controls of the page. */
function curveControls(...own) {
  const percent = (value) => `${value} %`;
  fromSlider = slider("from", { max: 100, value: 0, say: percent, change: zoomBySliders });
  toSlider = slider("to", { max: 100, value: 100, say: percent, change: zoomBySliders });
  const smoothing = slider("smoothing", {
    max: 1, step: 0.01, value: view.smoothing, say: (value) => value.toFixed(2),
    change: (value) => { view.smoothing = value; redraw(curveCharts); },
  });
  const axis = element("select", { "aria-label": "x-axis", onchange: (event) => { view.axis = event.target.value; zoom(null); } },
    element("option", { value: "steps" }, "steps"), element("option", { value: "hours" }, "hours of training"));
  const log = element("input", { type: "checkbox", onchange: (event) => { view.log = event.target.checked; redraw(curveCharts); } });
  const healthy = element("input", { type: "checkbox", checked: true, onchange: (event) => { view.healthy = event.target.checked; redraw(curveCharts); } });
  const toggles = several && !own.length ? element("div", { class: "runs", role: "group", "aria-label": "runs shown" }, runs.map(runToggle)) : null;
  return element("div", { class: "controls sticky" }, toggles, own,
    smoothing.label, element("label", {}, "x-axis", axis), element("label", {}, log, "logarithmic y"), data.healthy ? element("label", {}, healthy, "healthy run") : null,
    fromSlider.label, toSlider.label, element("button", { type: "button", onclick: () => zoom(null) }, "whole run"));
}

function runToggle(run, number) {
  const button = element("button", {
    type: "button", "aria-pressed": "true",
    onclick: () => {
      if (!view.hidden.delete(number)) view.hidden.add(number);
      button.setAttribute("aria-pressed", String(!view.hidden.has(number)));
      redraw();
    },
  }, swatch(number, RUN_DASHES[Math.floor(number / COLOURS) % RUN_DASHES.length]), run.label);
  return button;
}
