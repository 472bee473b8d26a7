// How codes were used over the validation clips: from the most used one to the least, through the evaluations.

/** The codes that no validation clip uses, as a curve like the others. */
function addDeadCodes() {
  for (const run of runs) {
    if (!run.codebook.length) continue;
    const measured = run.curves["validation/psnr"] || { steps: [], hours: [] };
    const hours = new Map(measured.steps.map((step, n) => [step, measured.hours[n]]));
    run.curves["codebook/dead"] = {
      steps: run.codebook.map((row) => row.step),
      hours: run.codebook.map((row) => hours.get(row.step) ?? null),
      values: run.codebook.map((row) => row.dead),
      rows: run.codebook.length,
    };
  }
}

/** The newest row of a run up to a step. */
function rowAt(run, step) {
  return run.codebook.filter((row) => row.step <= step).pop();
}

function codebookUse() {
  const steps = [...new Set(runs.flatMap((run) => run.codebook.map((row) => row.step)))].sort((a, b) => a - b);
  if (!steps.length) return null;
  let step = steps[steps.length - 1];
  const reading = element("p", { class: "faint", "aria-live": "polite" });
  const tell = () => {
    const said = runs.map((run) => [run, rowAt(run, step)]).filter(([, row]) => row).map(([run, row]) =>
      `${several ? `${run.label}: ` : ""}${row.dead} of ${row.codebook_size} codes never chosen, perplexity ${short(row.perplexity, 3)}`);
    reading.textContent = `At step ${step}: ${said.join("; ")}.`;
  };
  const made = chart({
    title: "shares of all choices, by rank", tall: true,
    caption: "Every code from the most to the least used one; dotted: if all were chosen alike. Codes never chosen have no point.",
    make: (colours) => ({
      traces: runs.flatMap((run, number) => {
        const row = rowAt(run, step);
        if (!row || view.hidden.has(number)) return [];
        const last = row.shares.length - 1, line = lineOf(several ? number : 0, colours);
        const ranks = row.shares.map((_, n) => (last ? Math.round(1 + n * (row.codebook_size - 1) / last) : 1));
        return [
          { x: ranks, y: row.shares.map((share) => share || null), name: plain(several ? run.label : "share"), line, mode: "lines+markers", marker: { size: 4 }, hovertemplate: "%{y:.2%}" },
          { x: [1, row.codebook_size], y: [1 / row.codebook_size, 1 / row.codebook_size], line: { ...line, dash: "dot", width: 1 }, mode: "lines", hoverinfo: "skip" },
        ];
      }),
      x: { title: { text: "rank", standoff: 4 } },
      y: { type: "log", range: scale, tickformat: ".2~%" },
    }),
  });
  // The same scale at every step, so that what moves is the curve.
  const all = runs.flatMap((run) => run.codebook.flatMap((row) => [...row.shares.filter((share) => share > 0), 1 / row.codebook_size]));
  const scale = [Math.log10(all.reduce((a, b) => Math.min(a, b), 1)) - 0.1, Math.log10(all.reduce((a, b) => Math.max(a, b), 0)) + 0.1];
  const through = slider("evaluation", {
    max: steps.length - 1, value: steps.length - 1, wide: true, say: (n) => `step ${steps[n]}`,
    change: (n) => { step = steps[n]; tell(); redraw([made]); },
  });
  tell();
  return element("div", {}, element("div", { class: "controls" }, through.label), reading, made.figure);
}
