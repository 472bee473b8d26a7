// The page, from top to bottom.

function curves() {
  const groups = curveGroups();
  if (!groups.size) return [null, null];
  const box = (figures) => element("div", { class: "charts" }, figures);
  const codebook = groups.get("codebook");
  groups.delete("codebook");
  const longest = Math.max(0, ...runs.flatMap((run) => Object.values(run.curves).map((curve) => curve.rows)));
  const thinned = longest > data.points ? ` Of ${longest} rows, about ${data.points} are drawn: the lowest and the highest of each short stretch.` : "";
  const how = touch ? "Zoom into all charts by from and to, or by the buttons of one" : "Drag over a chart to zoom into all of them, double-click to see the whole run";
  const hint = `${how}. Lines of ${FEW} points and more are smoothed, with the raw values behind.${thinned}`;
  return [
    section("curves", "Curves", curveControls(), element("p", { class: "faint" }, hint), healthyLegend(), [...groups].map(([panel, figures]) => element("div", { class: "panel" }, element("h3", {}, panel.replace("_", " ")), box(figures)))),
    section("codebook", "Codebook", codebookUse(), codebook ? box(codebook) : null),
  ];
}

/** Whose the grey lines are. */
function healthyLegend() {
  return data.healthy ? element("p", { class: "faint" }, element("span", { class: "swatch healthy", "data-dash": "solid", "aria-hidden": "true" }), data.healthy.said) : null;
}

addDeadCodes();
const [curveSection, codebookSection] = curves();
const sections = [
  summary(), runDifferences(), advice(), evaluations(),
  section("reconstructions", runs.every((run) => run.made === "continuation") ? "Continuations" : "Reconstructions", perRun((run) => (run.reconstructions.length ? throughTime(run) : null))),
  section("clips", "Clips", perRun(movingClips)),
  section("extremes", "Worst and best clips", perRun(extremes)),
  curveSection, codebookSection, skipped(), badFiles(), config(), environment(),
].filter((part) => part !== null);

const linked = sections.filter((part) => part.querySelector(":scope > h2"));
document.body.append(
  element("header", {}, element("h1", {}, several ? `${runs.length} runs` : runs[0].name)),
  element("nav", { "aria-label": "parts of this page" }, element("ul", {}, linked.map((part) => element("li", {}, element("a", { href: `#${part.id}` }, part.querySelector("h2").textContent.split(",")[0]))))),
  element("main", {}, sections),
  element("footer", {}, `Written at ${data.written} by vqgan ${data.version}.${runs.some((run) => run.state === "running") ? " The run goes on: load the page again for newer figures." : ""}`),
);
recolour();
