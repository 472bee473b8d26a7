// What each run came to: the table, the best one and its command line, and why others came to nothing.

const rated = runs.some((run) => run.bits !== null); // whether it is known what tokens cost
const outcome = data.metric.split("/").pop();

/** A table that is sorted by the column whose heading is pressed: first the best or largest, then the other way round. */
function sortable(label, columns, rows) {
  const body = element("tbody", {});
  const heads = columns.map(({ title, hint }, n) => {
    const button = element("button", { type: "button", title: hint || null, onclick: () => sort(n) }, title);
    return element("th", { scope: "col", "aria-sort": "none" }, button);
  });
  const sort = (n) => {
    const was = heads[n].getAttribute("aria-sort"), first = columns[n].ascending ? "ascending" : "descending";
    const order = was === "none" ? first : was === "ascending" ? "descending" : "ascending";
    heads.forEach((head, other) => head.setAttribute("aria-sort", other === n ? order : "none"));
    const value = ({ cells }) => cells[n].value;
    const known = rows.filter((row) => value(row) !== null), unknown = rows.filter((row) => value(row) === null);
    const compared = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
    known.sort((a, b) => (order === "ascending" ? 1 : -1) * compared(value(a), value(b)));
    body.replaceChildren(...known.map(({ row }) => row), ...unknown.map(({ row }) => row));
  };
  for (const one of rows) {
    one.row = element("tr", one.best ? { class: "best" } : {}, one.cells.map((cell, n) => element("td", columns[n].number ? { class: "number" } : {}, cell.shown)));
    body.append(one.row);
  }
  return element("div", { class: rows.length > 20 ? "scroll tall" : "scroll", tabindex: 0, role: "region", "aria-label": label },
    element("table", { class: "sortable" }, element("thead", {}, element("tr", {}, heads)), body));
}

/** A number of a config: whole ones in full, others in few digits. */
function neat(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  return value !== 0 && Math.abs(value) < 1e-3 ? String(Number(value.toPrecision(3)).toExponential()) : short(value, 3);
}

/** A value of the config as it is shown, and as it was written where the pointer rests. */
function valueOf(key, number) {
  const value = key.values[number];
  if (value === null) return { shown: element("span", { class: "faint" }, "–"), value: null };
  if (!key.numbers) return { shown: value, value };
  return { shown: element("span", { title: value }, neat(key.numbers[number])), value: key.numbers[number] };
}

const figure = (value, shown = short(value)) => ({ shown: value === null || value === undefined ? "–" : shown, value: value ?? null });
const share = (value) => figure(value, value === null ? "–" : `${short(value * 100, 3)} %`);

/** The rows of the table by the number of their run. */
const trialRows = [];

function trialTable() {
  const others = ["validation/psnr", "validation/ssim", "validation/lpips"].filter((name) => name !== data.metric && runs.some((run) => name in run.last));
  const columns = [
    { title: "run", ascending: true }, { title: `best ${outcome}`, hint: data.metric, number: true, ascending: !data.higher },
    ...data.keys.map((key) => ({ title: key.short, hint: key.name, number: key.numbers !== null, ascending: true })),
    { title: "state", ascending: true }, { title: "step", number: true }, { title: "best at step", number: true },
    ...[data.metric, ...others].map((name) => ({ title: `last ${name.split("/").pop()}`, hint: name, number: true })),
    { title: "usage", hint: "share of the codes", number: true }, { title: "perplexity", number: true },
    ...(data.caution ? [{ title: "on", hint: "the data that it is measured on", ascending: true }] : []),
    ...(rated ? [{ title: "tokens", hint: "of a frame", number: true, ascending: true }, { title: "bits/pixel", number: true, ascending: true }] : []),
    { title: "frames/s", hint: "median", number: true }, { title: "time", hint: "of training", number: true },
  ];
  runs.forEach((run, number) => trialRows.push({
    best: number === data.best,
    cells: [
      { shown: trialName(run, number), value: run.name }, figure(run.best), ...data.keys.map((key) => valueOf(key, number)),
      { shown: element("span", { class: `badge ${run.state}`, title: run.reason }, run.state), value: run.state },
      figure(run.step, run.steps !== null && run.step < run.steps ? `${run.step} of ${run.steps}` : String(run.step)),
      figure(run.best_step, String(run.best_step)),
      ...[data.metric, ...others].map((name) => figure(run.last[name])),
      share(run.usage), figure(run.perplexity),
      ...(data.caution ? [figure(run.on || null, run.on)] : []), ...(rated ? [figure(run.tokens), figure(run.bits, short(run.bits, 3))] : []),
      figure(run.rate, short(run.rate, 3)), figure(run.hours, duration(run.hours)),
    ],
  }));
  return sortable("runs", columns, trialRows);
}

function trialName(run, number) {
  const name = run.report ? element("a", { href: run.report, title: "its report" }, run.name) : run.name;
  return element("span", {}, number === data.best ? element("strong", { title: "the best" }, "★\u00a0") : null, name);
}

/** The best run in words, and the command line that trains it again. */
function bestTrial() {
  if (data.caution) return cautioned();
  if (data.best === null) return element("p", {}, `No run has measured ${data.metric} yet.`);
  const run = runs[data.best], command = element("pre", { tabindex: 0, "aria-label": "its command line" }, data.command);
  const said = element("span", { class: "faint", role: "status" });
  const copy = element("button", { type: "button", onclick: () => copied(command, said) }, "copy the command");
  const still = run.state === "finished" ? "" : ` It is ${run.state}.`;
  return element("div", { class: "card" },
    element("p", {}, element("strong", {}, `Best: ${run.label}`), ` – ${data.metric} ${short(run.best)} at step ${run.best_step}.${still}`),
    command, element("div", {}, copy, " ", said));
}

/** Why no run is the best of all, and which is the best of those that are measured on the same. */
function cautioned() {
  const rows = data.measured_on.map((on, n) => [data.letters[n], on, data.bests[n].name, short(data.bests[n].best), element("code", {}, data.bests[n].command)]);
  return element("div", { class: "card" }, element("p", {}, element("strong", {}, data.caution)),
    table(["on", "data", "best of them", outcome, "its command"], rows, { numbers: [3] }));
}

/** Copy text; where a browser refuses that to a file, mark it. */
async function copied(source, said) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    said.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(source);
    said.textContent = "marked: copy it by keyboard";
  }
}

/** The reasons of runs that came to nothing, each once. */
function reasons() {
  const found = new Map();
  for (const run of runs.filter((one) => ["diverged", "failed", "damaged"].includes(one.state))) {
    const reason = [run.state, run.reason];
    found.set(reason.join("\n"), { reason, names: [...(found.get(reason.join("\n"))?.names ?? []), run.name] });
  }
  if (!found.size) return null;
  const rows = [...found.values()].map(({ reason: [state, why], names }) => [names.join(", "), element("span", { class: `badge ${state}` }, state), why]);
  return section("reasons", "What went wrong", table(["runs", "state", "reason"], rows));
}
