// What is said in words and tables: the summary, differences, bad files, config and environment.

const FIGURES = [["validation/psnr", "PSNR", "dB"], ["validation/ssim", "SSIM", ""], ["validation/lpips", "LPIPS", ""], ["validation/usage", "codes in use", "%"], ["validation/perplexity", "perplexity", ""]];

function figureOf(run, name) {
  return run.figures.find((figure) => figure.name === name);
}

function said(value, unit) {
  return unit === "%" ? `${short(value * 100, 3)} %` : `${short(value)} ${unit}`.trim();
}

function badge(run) {
  return element("span", { class: `badge ${run.state}` }, run.state);
}

function progress(run) {
  if (run.step === null) return "no step yet";
  return run.steps === null ? `step ${run.step}` : `step ${run.step} of ${run.steps}`;
}

/** The figures of one run as cards, of several as a table. */
function summary() {
  if (several) {
    const rows = runs.map((run, number) => [
      element("span", {}, swatch(number, RUN_DASHES[Math.floor(number / COLOURS) % RUN_DASHES.length]), run.label), badge(run), progress(run), duration(run.hours),
      ...FIGURES.map(([name, , unit]) => { const figure = figureOf(run, name); return figure ? `${said(figure.last, unit)} (${said(figure.best, unit)})` : "–"; }),
      run.speed,
    ]);
    return section("summary", "Runs", table(["run", "state", "steps", "time", ...FIGURES.map(([, title]) => title), "speed"], rows, { numbers: [2, 3, 4, 5, 6, 7, 8] }),
      element("p", { class: "faint" }, "Validation figures: the last one, in brackets the best."));
  }
  const run = runs[0], mean = figureOf(run, "validation/psnr_mean_colour");
  const cards = FIGURES.map(([name, title, unit]) => [figureOf(run, name), name, title, unit]).filter(([figure]) => figure).map(([figure, name, title, unit]) =>
    element("div", { class: "card" }, element("div", { class: "faint" }, title), element("div", { class: "value" }, said(figure.last, unit)),
      element("div", { class: "faint" }, `best ${said(figure.best, unit)} at step ${figure.best_step}`),
      name === "validation/psnr" && mean ? element("div", { class: "faint" }, `mean colour alone ${said(mean.last, "dB")}`) : null));
  return element("section", { id: "summary", "aria-label": "summary" },
    element("p", {}, badge(run), ` ${progress(run)}, ${duration(run.hours)} of training. ${run.speed[0].toUpperCase()}${run.speed.slice(1)}.`),
    run.about ? element("p", {}, `${run.about}.`) : null,
    cards.length ? element("div", { class: "cards" }, cards) : null);
}

function advice() {
  const items = runs.flatMap((run) => run.advice.map(([step, name, text]) =>
    element("li", {}, element("strong", {}, `${several ? `${run.label}: ` : ""}${name}`), ` at step ${step}: ${text}`)));
  return section("advice", "What to look at", items.length ? element("ul", { class: "advice" }, items) : null,
    items.length ? element("p", { class: "faint" }, "docs/failures.md shows runs that failed, what their curves looked like, and what helps.") : null);
}

/** A table of the keys whose values are not the same in all runs. */
function differences(values) {
  const rows = Object.entries(values).map(([key, row]) => [element("code", {}, key), ...row.map((value) => (value === null ? element("span", { class: "faint" }, "not typed") : value))]);
  return table(["", ...runs.map((run) => run.name)], rows);
}

function runDifferences() {
  if (!several) return null;
  const none = element("p", { class: "faint" }, "The same was typed for all of them.");
  const config = table(["", ...runs.map((run) => run.name)], Object.entries(data.config).map(([key, row]) => [element("code", {}, key), ...row.map((value) => value ?? "–")]));
  return section("differences", "Differences", element("h3", {}, "Overrides"), differences(data.typed) || none,
    config ? element("details", {}, element("summary", {}, `Values of the config that differ (${Object.keys(data.config).length})`), config) : null);
}

/** For each run its part, under its name if there are several. */
function named(parts) {
  return runs.map((run, number) => (parts[number] && several ? element("div", {}, element("h3", {}, swatch(number), run.label), parts[number]) : parts[number]));
}

/** What `vqgan evaluate` found: of several runs a column for each, and what is to be known of a figure once. */
function evaluations() {
  if (!several) return section("evaluation", "Evaluation", table(["figure", "value", "95 % interval", "remark"], runs[0].evaluation, { numbers: [1, 2] }));
  const measured = runs.filter((run) => run.evaluation.length);
  const figures = new Map(measured.flatMap((run) => run.evaluation.map(([name]) => [name, measured.map((one) => one.evaluation.find((row) => row[0] === name))])));
  const cell = (row) => (row ? [row[1], row[2] && `[${row[2].replace(" to ", ", ")}]`].filter(Boolean).join(" ") : "–");
  const remarks = [...figures].map(([name, rows]) => [name, [...new Set(rows.map((row) => row?.[3]).filter(Boolean))].join("; ")]).filter(([, said]) => said);
  return section("evaluation", "Evaluation",
    table(["figure", ...measured.map((run) => run.label)], [...figures].map(([name, rows]) => [name, ...rows.map(cell)]), { numbers: measured.map((_, n) => n + 1) }),
    remarks.length ? element("ul", { class: "faint" }, remarks.map(([name, said]) => element("li", {}, `${name}: ${said}`))) : null);
}

function counted(header, { rows, total }) {
  const shown = table(header, rows, { short: true });
  return shown && element("div", {}, element("p", { class: "faint" }, total > rows.length ? `The first ${rows.length} of ${total}.` : `${total} in all.`), shown);
}

function badFiles() {
  return section("files", "Files that could not be used", named(runs.map((run) => counted(["file", "reason"], run.bad_files))));
}

function skipped() {
  return section("skipped", "Steps that were skipped, since their numbers were not finite", named(runs.map((run) => counted(["step", "clips"], run.skipped))));
}

function config() {
  return section("config", "Config", named(runs.map((run) => element("div", {},
    run.overrides.length ? element("pre", { "aria-label": "what was typed" }, run.overrides.join("\n")) : element("p", { class: "faint" }, "Nothing was overridden."),
    run.config ? element("details", {}, element("summary", {}, "All of config.yaml"), element("pre", {}, run.config)) : null))));
}

function environment() {
  return section("environment", "Environment", named(runs.map((run) => table([], run.environment))));
}
