// The page of a comparison, from top to bottom.

/** The curves of all runs over each other, of one metric at a time; the best lie on top. */
function curvesTogether() {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))].sort();
  if (!names.length) return null;
  let metric = names.includes(data.metric) ? data.metric : names[0];
  view.smoothing = 0;
  const known = () => runs.map((run, number) => [run.curves[metric], number]).filter(([curve, number]) => curve && !view.hidden.has(number)).reverse();
  const made = chart({
    title: "all runs over each other", tall: true, on: { plotly_relayout: zoomed },
    make: (colours) => {
      const shades = colourOf(colours);
      const traces = known().map(([curve, number]) => ({
        x: curve[view.axis], y: view.smoothing > 0 && curve.values.length >= FEW ? smoothed(curve.values, view.smoothing) : curve.values,
        name: plain(runs[number].label), mode: curve.values.length <= 2 * FEW ? "lines+markers" : "lines", marker: { size: 4 },
        line: { color: shades.get(number) ?? colours.faint, width: number === data.best ? 3.5 : 1.5, dash: runs[number].counts ? "solid" : "dot" },
        hovertemplate: "%{y:.5g}",
      }));
      const log = view.log && traces.every((trace) => trace.y.every((value) => value === null || value > 0));
      return {
        traces, hovermode: "closest", y: { type: log ? "log" : "linear", ...heightOf(traces, log) },
        x: { title: { text: view.axis === "steps" ? "step" : "hours", standoff: 4 }, range: view.range || whole() },
      };
    },
  });
  curveCharts.push(made);
  const caption = made.figure.querySelector("figcaption");
  const tell = () => { caption.textContent = [metric, MEANINGS[metric]].filter(Boolean).join(": "); };
  const choice = element("select", { onchange: (event) => { metric = event.target.value; tell(); redraw([made]); } },
    names.map((name) => element("option", name === metric ? { value: name, selected: true } : { value: name }, name)));
  tell();
  const remarks = [], left = runs.filter((run) => !Object.keys(run.curves).length).length;
  if (runs.some((run) => !run.counts)) remarks.push("Dotted: runs without a result.");
  if (runs.some((run) => Object.values(run.curves).some((curve) => curve.rows > data.points))) remarks.push(`Of each curve about ${data.points} points are drawn: the lowest and the highest of each short stretch.`);
  if (left) remarks.push(`${left} of ${runs.length} runs have no curves here: they logged nothing, or are not among the best.`);
  return section("curves", "Learning curves", curveControls(element("label", {}, "metric", choice)),
    remarks.length ? element("p", { class: "faint" }, remarks.join(" ")) : null, made.figure);
}

/** How many runs there are, and what was varied. */
function overview() {
  const names = data.keys.map((key, n) => element("span", {}, n ? ", " : " Varied: ", element("code", {}, key.name)));
  const end = !names.length ? " Nothing was varied." : data.more_keys ? ` and ${data.more_keys} more, which are in the .csv file beside this page.` : ".";
  return element("p", {}, `${data.counts}.`, names, end);
}

const sections = [
  section("trials", "Runs", overview(), bestTrial(), trialTable(), element("p", { class: "faint" }, "Press a heading to sort by it. Names lead to the runs' own reports.")),
  reasons(), againstBits(), parallelCoordinates(), importance(), scatters(), curvesTogether(),
].filter((part) => part !== null);

document.body.append(
  element("header", {}, element("h1", {}, data.counts.split(":")[0], " compared")),
  element("nav", { "aria-label": "parts of this page" }, element("ul", {}, sections.map((part) => element("li", {}, element("a", { href: `#${part.id}` }, part.querySelector("h2").textContent))))),
  element("main", {}, sections),
  element("footer", {}, `Written at ${data.written} by vqgan ${data.version}.${runs.some((run) => run.state === "running") ? " Runs go on: type vqgan compare again for newer figures." : ""}`),
);
recolour();
