// Several tokenizers and others on the same frames, from top to bottom.

const RATE = data.rate;
const QUALITIES = ["psnr", "ssim", "lpips", "rfvd"];
const value = (subject, name) => subject.metrics[name][0];

/** Every figure of every subject, with its interval where it has one. */
function figures() {
  const names = Object.keys(data.units).filter((name) => runs.some((subject) => value(subject, name) !== null));
  const cell = ([middle, low, high]) => (low === null ? short(middle) : element("span", { title: `interval: ${short(low)} to ${short(high)}` }, short(middle)));
  const rows = runs.map((subject) => [subject.name, ...names.map((name) => cell(subject.metrics[name]))]);
  const heads = names.map((name) => (data.units[name] ? `${name} (${data.units[name]})` : name));
  return section("figures", "Figures", table(["", ...heads], rows, { numbers: names.map((_, n) => n + 1) }),
    element("ul", { class: "faint" }, data.remarks.map((remark) => element("li", {}, remark))));
}

/** Quality over bits: codecs as lines, all else as points. */
function rates() {
  const known = runs.filter((subject) => value(subject, RATE) > 0);
  if (known.length < 2) return null;
  const groups = [...new Set(known.map((subject) => subject.curve ?? subject.name))];
  const charted = QUALITIES.filter((name) => known.some((subject) => value(subject, name) !== null)).map((name) => chart({
    title: `${name} over ${RATE.replace("_per_", " a ").replace("_", " ")}`, caption: ["lpips", "rfvd"].includes(name) ? "lower is better" : "higher is better", tall: true,
    make: (colours) => ({
      traces: groups.map((group, number) => {
        const points = known.filter((subject) => (subject.curve ?? subject.name) === group && value(subject, name) !== null)
          .sort((a, b) => value(a, RATE) - value(b, RATE));
        const isCurve = points.length > 0 && points[0].curve !== null;
        return {
          x: points.map((subject) => value(subject, RATE)), y: points.map((subject) => value(subject, name)),
          text: points.map((subject) => plain(subject.name)), name: plain(group), mode: isCurve ? "lines+markers" : "markers",
          line: lineOf(number, colours), marker: { size: isCurve ? 6 : 12, color: colours.line(number), symbol: isCurve ? "circle" : "diamond" },
          hovertemplate: `%{text}<br>%{x:.4g} ${data.units[RATE]}, %{y:.4g}<extra></extra>`,
        };
      }),
      hovermode: "closest", x: { type: "log", title: { text: data.units[RATE], standoff: 4 } }, y: { title: { text: data.units[name] || name } },
    }),
  }));
  const legend = element("p", {}, groups.map((group, number) => element("span", {}, swatch(number, RUN_DASHES[Math.floor(number / COLOURS) % RUN_DASHES.length]), `${group} `)));
  return section("rates", "Quality and bits", legend, element("div", { class: "charts" }, charted.map((one) => one.figure)),
    element("p", { class: "faint" }, data.bits));
}

/** The same clips of all subjects under one slider, those first where they differ most. */
function clips() {
  if (!data.clips.length) return null;
  const rows = data.clips.map((clip, n) => {
    const best = Math.max(...clip.made.map((made) => (made === null ? -Infinity : made.psnr)));
    const tilesOfClip = [moving(clip.original, clip.original, clip.frames, `${clip.source}: original`, "original")];
    clip.made.forEach((made, m) => {
      const { name } = runs[data.shown[m]];
      if (made === null) return tilesOfClip.push(element("div", { class: "tile" }, element("div", { class: "frame" }), `${name}: none`));
      const level = `${short(made.psnr)} dB`;
      tilesOfClip.push(moving(made.strip, clip.original, clip.frames, `${clip.source}: ${name}`, `${name}, `, made.psnr === best ? element("b", {}, level) : level));
    });
    const title = `${n + 1}. ${clip.source}${data.shown.length > 1 ? `, up to ${short(clip.difference, 3)} dB apart` : ""}`;
    return element("div", { class: "clip" }, element("h3", {}, title), element("div", { class: "tiles" }, tilesOfClip));
  });
  const box = element("div", {}, rows);
  const { most, controls } = player(box, rows, data.clips.map((clip) => clip.frames));
  return section("clips", "The same clips", controls, box,
  element("p", { class: "faint" }, `A random sample of the clips, those first where PSNR differs most; ${most > 1 ? `the first ${most} frames, ` : ""}PSNR of the whole clip.`));
}

const sections = [figures(), rates(), clips()].filter((part) => part !== null);
document.body.append(
  element("header", {}, element("h1", {}, `${runs.length} measured side by side`)),
  element("nav", { "aria-label": "parts of this page" }, element("ul", {}, sections.map((part) => element("li", {}, element("a", { href: `#${part.id}` }, part.querySelector("h2").textContent))))),
  element("main", {}, sections),
  element("footer", {}, `Written at ${data.written} by vqgan ${data.version}.`),
);
recolour();
