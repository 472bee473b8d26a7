// Clips that move: strips of their frames, of which one is seen, under one slider.

/** A clip: the strip of its frames. */
function moving(strip, original, frames, label, ...caption) {
  const style = { class: "frame moving", role: "img", "aria-label": label, "--frames": frames, "--made": `url("${address(strip)}")`, "--original": `url("${address(original)}")` };
  return element("div", { class: "tile" }, element("div", style), ...caption);
}

/** What moves the clips in some rows of a box, of so many frames each: a slider, and a button that plays them. */
function player(box, rows, frames, ...more) {
  const most = Math.max(...frames);
  const at = (frame) => rows.forEach((row, n) => {
    const share = frames[n] > 1 ? Math.min(frame, frames[n] - 1) / (frames[n] - 1) : 0;
    row.style.setProperty("--at", `${100 * share}%`);
  });
  let frame = 0, timer = null;
  const control = slider("frame", { max: most - 1, value: 0, wide: true, say: (n) => `${n + 1} of ${most}`, change: (n) => { frame = n; at(n); } });
  const show = (n) => { frame = n; control.set(n); at(n); };
  const button = element("button", { type: "button" });
  const play = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => box.isConnected && show((frame + 1) % most), 125) : null;
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "stop" : "play";
  };
  button.addEventListener("click", () => play(timer === null));
  at(0);
  play(false);
  const difference = element("input", { type: "checkbox", onchange: (event) => box.classList.toggle("difference", event.target.checked) });
  const controls = element("div", { class: "controls sticky" }, most > 1 ? [control.label, button] : null, more,
    element("label", {}, difference, "difference from the original, four times as bright"));
  return { most, controls, show, play };
}

/** Validation clips of a run beside their reconstructions, the one with the worst moment first. */
function movingClips(run) {
  if (!run.moving.length) return null;
  const file = (clip) => clip.source.split(/[\\/]/).pop();
  const rows = run.moving.map(({ clip, original, result, frames }) => {
    const label = `${file(clip)}, clip ${clip.clip}`;
    const strips = [original, result].map((n) => run.strips[n]);
    return element("div", { class: "both", title: clip.source },
      moving(strips[0], strips[0], frames, `${label}: original`, label),
      moving(strips[1], strips[0], frames, `${label}: reconstruction`, `${short(clip.psnr)} dB`));
  });
  const box = element("div", { class: "tiles" }, rows);
  const worst = element("button", { type: "button" }, "worst moment");
  const { controls, show, play } = player(box, rows, run.moving.map((clip) => clip.frames), run.moment ? worst : null);
  worst.addEventListener("click", () => { play(false); show(run.moment.frame); });
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  return element("div", {}, controls, run.moment ? worstMoment(run.moment, run.moving[0], file) : null, box,
    element("p", { class: "faint" }, "Of each pair the original is on the left. PSNR is of the whole clip; the first pair has the worst moment."));
}

/** The frame with the lowest PSNR of all validation clips, in words. */
function worstMoment({ frame, second, psnr }, { clip, frames }, file) {
  const when = second === null ? "" : `at ${second.toFixed(2)} s, `;
  return element("p", {}, "Worst moment: ", element("b", {}, `${short(psnr)} dB`),
    ` in ${file(clip)}, ${when}frame ${frame + 1} of ${frames} of clip ${clip.clip}, which has ${short(clip.psnr)} dB on the whole.`);
}
