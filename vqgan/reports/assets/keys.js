// What was varied: parallel coordinates, the importance of each key, and the result over each key.

const compared = runs.map((_, number) => number).filter((number) => runs[number].counts);
const results = compared.map((number) => runs[number].best);
const paint = { by: -1 }; // the key that colours tell, or -1 for the result

/** Positions in [0, 1] by rank, so that one value far from the others leaves colours to them. */
function byRank(values) {
  const order = [...new Set(values)].sort((a, b) => a - b);
  return values.map((value) => (order.length > 1 ? order.indexOf(value) / (order.length - 1) : 1));
}

/** The colour of each compared run, by its number. */
function colourOf(colours) {
  const key = data.keys[paint.by], names = key && !key.numbers ? namesOf(key) : [];
  const values = key ? key.numbers && compared.map((number) => key.numbers[number]) : results.map((value) => (data.higher ? value : -value));
  const positions = values ? byRank(values) : [];
  return new Map(compared.map((number, n) => [number, values ? between(colours.line(1), colours.line(0), positions[n]) : colours.line(names.indexOf(nameOf(key, number)))]));
}

/** A colour between two, written as #rrggbb. */
function between(from, to, position) {
  const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const [a, b] = [parts(from), parts(to)];
  return `#${a.map((value, n) => Math.round(value + (b[n] - value) * position).toString(16).padStart(2, "0")).join("")}`;
}

function nameOf(key, number) {
  return key.values[number] ?? "–";
}

/** The different values of a key that are no numbers, in a natural order. */
function namesOf(key) {
  return [...new Set(compared.map((number) => nameOf(key, number)))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
}

/** An axis: where the value of a run lies in [0, 1], and ticks. */
function axisOf(title, values, log, flipped = false) {
  const scale = (value) => (log ? Math.log10(value) : value);
  const known = [...new Set(values)].sort((a, b) => a - b);
  const [low, high] = [scale(known[0]), scale(known[known.length - 1])];
  const at = (value) => { const place = high > low ? (scale(value) - low) / (high - low) : 0.5; return flipped ? 1 - place : place; };
  const steps = [0, 0.25, 0.5, 0.75, 1].map((part) => low + part * (high - low)).map((value) => (log ? 10 ** value : value));
  const ticks = (known.length <= 6 ? known : steps).map((value) => [at(value), neat(value)]);
  return { title, places: values.map(at), ticks, said: values.map(neat) };
}

function axisOfNames(key) {
  const names = namesOf(key), at = (name) => (names.length > 1 ? names.indexOf(name) / (names.length - 1) : 0.5);
  const values = compared.map((number) => nameOf(key, number));
  const cut = (name) => (name.length > 14 ? `${name.slice(0, 13)}…` : name);
  return { title: key.short, places: values.map(at), ticks: names.length <= 20 ? names.map((name) => [at(name), cut(name)]) : [], said: values };
}

const axes = compared.length ? [
  ...data.keys.map((key) => (key.numbers ? axisOf(key.short, compared.map((number) => key.numbers[number]), key.log) : axisOfNames(key))),
  axisOf(`best ${outcome}`, results, false, !data.higher),
] : [];
const chosen = new Map(); // the part of an axis that was marked, by the number of the axis

/** Hide the runs that lie outside of what is marked, on this page's charts and in its table. */
function choose() {
  view.hidden.clear();
  if (chosen.size) runs.forEach((run, number) => { if (!run.counts) view.hidden.add(number); });
  compared.forEach((number, n) => {
    const inside = [...chosen].every(([axis, [low, high]]) => axes[axis].places[n] >= low && axes[axis].places[n] <= high);
    if (!inside) view.hidden.add(number);
  });
  trialRows.forEach(({ row }, number) => row.classList.toggle("out", view.hidden.has(number)));
  redraw();
}

/** Mark the part of each axis that a rectangle was drawn over. */
function marked(event) {
  if (!event?.range) return;
  const [[left, right], [low, high]] = [event.range.x, event.range.y].map((range) => [...range].sort((a, b) => a - b));
  axes.forEach((_, axis) => { if (axis >= left && axis <= right) chosen.set(axis, [low, high]); });
  choose();
}

function parallelCoordinates() {
  if (!data.keys.length || compared.length < 2) return null;
  const made = chart({
    title: "a line for each run, from what was varied to what came of it", tall: true,
    caption: `Last: the best ${data.metric} of the run, the best run at the top.`,
    on: { plotly_selected: marked },
    make: (colours) => {
      const shades = colourOf(colours), drawn = [...compared.keys()].reverse().sort((a, b) => view.hidden.has(compared[b]) - view.hidden.has(compared[a]));
      const tick = { showarrow: false, xanchor: "right", xshift: -6, font: { color: colours.text, size: 11 }, bgcolor: `${colours.page}b0` };
      return {
        traces: drawn.map((n) => {
          const number = compared[n], hidden = view.hidden.has(number);
          return {
            x: axes.map((_, axis) => axis), y: axes.map((axis) => axis.places[n]), customdata: axes.map((axis) => plain(`${axis.title} ${axis.said[n]}`)),
            name: plain(runs[number].name), mode: "lines+markers", opacity: hidden ? 0.08 : 0.85, hoverinfo: hidden ? "skip" : undefined,
            line: { color: shades.get(number), width: number === data.best ? 4 : 1.5 }, marker: { size: 5, color: shades.get(number) },
            hovertemplate: hidden ? undefined : "%{customdata}", selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 1 } },
          };
        }),
        x: { visible: false, range: [-0.45, axes.length - 0.85], fixedrange: true },
        y: { visible: false, range: [-0.06, 1.06] },
        margin: { l: 30, r: 30, t: 62, b: 8 }, hovermode: "closest", dragmode: touch ? false : "select", selections: [],
        newselection: { line: { color: colours.text, width: 1 } },
        shapes: axes.flatMap((_, axis) => {
          const line = { type: "line", x0: axis, x1: axis, layer: "below" }, part = chosen.get(axis);
          return [
            { ...line, y0: 0, y1: 1, line: { color: colours.faint, width: 1 } },
            ...(part ? [{ ...line, y0: Math.max(part[0], -0.04), y1: Math.min(part[1], 1.04), line: { color: colours.faint, width: 9 }, opacity: 0.5 }] : []),
          ];
        }),
        annotations: axes.flatMap(({ title, ticks }, axis) => [
          { x: axis, y: 1, yshift: 14, text: plain(title), showarrow: false, textangle: -18, xanchor: "left", yanchor: "bottom", xshift: -12, font: { color: colours.text, size: 12 } },
          ...ticks.map(([place, text]) => ({ ...tick, x: axis, y: place, text: plain(text) })),
        ]),
      };
    },
  });
  made.figure.style.minWidth = `${6 * axes.length}rem`;
  const all = element("button", { type: "button", onclick: () => { chosen.clear(); choose(); } }, "all runs");
  const hint = touch ? "" : " Drag over a part of an axis to see only the runs that pass there, on the whole page; over several, one after the other.";
  const away = runs.length - compared.length;
  const missing = away ? ` ${away} of ${runs.length} runs are not here, for they have no result.` : "";
  return section("coordinates", "Parallel coordinates", element("div", { class: "controls" }, colourChoice(), all),
    element("p", { class: "faint" }, `${hint}${missing}`.trim()), element("div", { class: "scroll" }, made.figure));
}

/** What colours tell, in all charts of the page. */
function colourChoice() {
  const scale = element("span", { class: "scale", "aria-hidden": "true" }), ends = [element("span", {}), element("span", {})];
  const tell = () => {
    const key = data.keys[paint.by];
    scale.hidden = Boolean(key && !key.numbers);
    const words = !key ? ["worst", "best"] : key.numbers ? ["low", "high"] : ["one colour for each name", ""];
    ends.forEach((end, n) => { end.textContent = words[n]; });
  };
  const select = element("select", { onchange: (event) => { paint.by = Number(event.target.value); tell(); redraw(); } },
    element("option", { value: -1 }, `best ${outcome}`), data.keys.map((key, n) => element("option", { value: n }, key.short)));
  tell();
  return element("label", {}, "colour by", select, ends[0], scale, ends[1]);
}

const METHOD = "How much a key explains by itself: the share of the variance, between the groups of runs that have the same value, of the runs' "
  + "ranks by the best value of the metric. This is the correlation ratio (eta squared), the main effect of fANOVA (Hutter et al. 2014), corrected "
  + "for the number of groups (epsilon squared). Numbers with many different values are cut into up to 8 groups of neighbours. "
  + "What keys do only together is in no share; where values were not spread alike over those of other keys, as in a search that "
  + "goes where results are good, shares can mislead. A share below what 95 % of random orders reach says nothing.";

function importance() {
  if (!data.keys.length) return null;
  if (data.why) return section("importance", "Importance", element("p", {}, `Not said: ${data.why}.`));
  const percent = (value) => `${Math.round(value * 100)} %`;
  const rows = data.importances.map(({ names, share: explained, by_chance: chance, groups, grouped }) => [
    element("code", {}, names.join(" + ")), explained === null ? "–" : percent(explained), explained === null ? "–" : `up to ${percent(chance)}`,
    explained === null ? "too many different values" : element("span", { class: "bar", "--share": `${100 * explained}%`, "--chance": `${100 * chance}%` }),
    `${groups} ${grouped ? "groups of neighbouring values" : "values"}${names.length > 1 ? "; these changed together" : ""}`,
  ]);
  return section("importance", "Importance", element("p", {}, `What explains the differences in ${data.metric} between the ${data.finished} finished runs.`),
    table(["key", "explains", "by chance", "", "of"], rows, { numbers: [1, 2] }), element("p", { class: "faint" }, METHOD));
}

/** The result over a key, a point for each run that has a value. */
function resultOver(key, caption) {
  return chart({
    title: key.short, caption,
    make: (colours) => {
      const shades = colourOf(colours), shown = compared.filter((number) => key.values[number] !== null || !key.numbers);
      const drawn = shown.filter((number) => !view.hidden.has(number)).reverse();
      const x = drawn.map((number) => (key.numbers ? key.numbers[number] : plain(nameOf(key, number))));
      const known = [...new Set(key.numbers ? shown.map((number) => key.numbers[number]) : [])];
      const scale = key.numbers
        ? { type: key.log ? "log" : "linear", exponentformat: "power", ...(known.length <= 6 ? { tickvals: known, ticktext: known.map(neat) } : {}) }
        : { type: "category", categoryarray: namesOf(key).map(plain) };
      return {
        traces: [{
          x, y: drawn.map((number) => runs[number].best), text: drawn.map((number) => plain(runs[number].name)), mode: "markers", name: "",
          marker: { color: drawn.map((number) => shades.get(number)), size: drawn.map((number) => (number === data.best ? 13 : 8)), line: { color: colours.page, width: 1 } },
          hovertemplate: "%{text}: %{y:.5g} at %{x}",
        }],
        x: { ...scale, title: { text: plain(key.short), standoff: 4 } },
        y: { title: { text: plain(outcome), standoff: 4 } }, hovermode: "closest",
      };
    },
  }).figure;
}

/** The result over each key. */
function scatters() {
  if (compared.length < 2) return null;
  const figures = data.keys.map((key) => resultOver(key, key.short === key.name ? "" : key.name));
  return section("keys", "Over each key", figures.length ? element("div", { class: "charts" }, figures) : null);
}

/** Quality against what it costs: which runs are better at the same bits, which need fewer for the same. */
function againstBits() {
  const bits = runs.map((run) => run.bits), known = new Set(compared.map((number) => bits[number]).filter((value) => value !== null));
  if (known.size < 2) return null;
  const key = { short: "bits a pixel", numbers: bits, values: bits, log: true };
  const hint = `Each point is a run: up and to the left is better.${data.caution ? " Compare those on the same data alone." : ""}`;
  return section("bits", "Quality against bits", element("p", { class: "faint" }, data.higher ? hint : hint.replace("up", "down")), resultOver(key, "bits of a token times tokens of a frame, over its pixels"));
}
