// Originals and reconstructions, one over the other, with a border between them that can be moved.

/** A picture that is in the page, as the address of a blob: short enough to stand in a style. */
const addresses = new Map();
function address(url) {
  if (!addresses.has(url)) {
    const bytes = Uint8Array.from(atob(url.split(",")[1]), (character) => character.charCodeAt(0));
    addresses.set(url, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
  }
  return addresses.get(url);
}

/** Clips of one comparison as tiles; `captions` has a text for each. */
function tiles(captions, name) {
  const count = captions.length;
  const made = captions.map((caption, n) => element("div", { class: "tile", "--at": count > 1 ? `${100 * n / (count - 1)}%` : "0" },
    element("div", { class: "frame", role: "img", "aria-label": `${name}, clip ${n + 1}: original and reconstruction` },
      element("div", { class: "strip original" }), element("div", { class: "strip result" }), element("div", { class: "edge" })),
    caption));
  return element("div", { class: "tiles", "--clips": count }, made);
}

function show(box, run, comparison) {
  box.style.setProperty("--original", `url("${address(run.strips[comparison.original])}")`);
  box.style.setProperty("--result", `url("${address(run.strips[comparison.result])}")`);
}

/** The slider for the border in some boxes of tiles, which can also be dragged in any tile. */
function wipe(boxes, made) {
  const move = (percent) => boxes.forEach((box) => box.style.setProperty("--wipe", `${percent}%`));
  const control = slider(`original to ${made}`, {
    max: 100, value: 50, wide: true, say: (percent) => `${percent} % original`, change: move,
  });
  const drag = (event) => {
    if (event.buttons === 0) return;
    const frame = event.currentTarget.getBoundingClientRect();
    const percent = Math.round(100 * Math.min(1, Math.max(0, (event.clientX - frame.left) / frame.width)));
    control.set(percent);
    move(percent);
  };
  for (const frame of boxes.flatMap((box) => [...box.querySelectorAll(".frame")])) {
    frame.addEventListener("pointerdown", (event) => { frame.setPointerCapture(event.pointerId); drag(event); });
    frame.addEventListener("pointermove", drag);
  }
  return control.label;
}

/** What the reconstructions of one run show, through time. */
function throughTime(run) {
  const shown = run.reconstructions;
  for (const comparison of shown) address(run.strips[comparison.result]);
  const box = tiles(Array(shown[shown.length - 1].clips).fill(""), "validation");
  const psnr = run.curves["validation/psnr"];
  const say = (n) => {
    const at = psnr ? psnr.steps.indexOf(shown[n].step) : -1;
    return `step ${shown[n].step}${at < 0 ? "" : `, ${short(psnr.values[at])} dB`}`;
  };
  const time = slider("time", { max: shown.length - 1, value: shown.length - 1, wide: true, say, change: (n) => show(box, run, shown[n]) });
  show(box, run, shown[shown.length - 1]);
  const left = run.evaluations > shown.length ? `${shown.length} of ${run.evaluations} evaluations. ` : "";
  return element("div", {},
    element("div", { class: "controls" }, wipe([box], run.made), shown.length > 1 ? time.label : null), box,
    element("p", { class: "faint" }, `${left}Left of the border the original, right of it the ${run.made}. Drag it in a picture, or move the slider.`));
}

/** The clips with the lowest and the highest PSNR. */
function extremes(run) {
  const names = ["worst", "best"].filter((name) => run.extremes[name]);
  if (!names.length) return null;
  const boxes = names.map((name) => {
    const { pictures, ranked } = run.extremes[name];
    const captions = ranked.map((clip) => element("span", { title: clip.source }, `${short(clip.psnr)} dB, ${clip.source.split(/[\\/]/).pop()}, clip ${clip.clip}`));
    const box = tiles(captions, name);
    box.style.setProperty("--clips", pictures.clips);
    [...box.children].forEach((tile, n) => tile.style.setProperty("--at", pictures.clips > 1 ? `${100 * n / (pictures.clips - 1)}%` : "0"));
    show(box, run, pictures);
    return box;
  });
  const step = run.extremes[names[0]].pictures.step;
  return element("div", {},
    element("div", { class: "controls" }, wipe(boxes, run.made)),
    element("div", { class: "pair" }, boxes.map((box, n) => element("div", {}, element("h3", {}, `${names[n]} by PSNR`), box))),
    step === null ? null : element("p", { class: "faint" }, `Middle frames of validation clips at step ${step}.`));
}

/** One part of the page for each run, of which one is shown. */
function perRun(make) {
  const shown = runs.map(make);
  if (!several) return shown[0];
  if (shown.every((part) => part === null)) return null;
  const place = element("div", {});
  const put = (number) => place.replaceChildren(shown[number] ?? element("p", { class: "faint" }, "This run has none."));
  put(0);
  const choice = element("select", { "aria-label": "run", onchange: (event) => put(Number(event.target.value)) },
    runs.map((run, number) => element("option", { value: number }, run.label)));
  return element("div", {}, element("div", { class: "controls" }, element("label", {}, "run", choice)), place);
}
