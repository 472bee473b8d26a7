"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const several = runs.length > 1;

/** A DOM element. Children are elements or text; text stays text, so nothing that a run says is ever read as HTML. */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) made.style.setProperty(key, value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}

/** A section with a heading; `null` if it has nothing to show. */
function section(id, title, ...children) {
  const shown = children.flat().filter((child) => child !== null);
  return shown.length ? element("section", { id, "aria-labelledby": `${id}-title` }, element("h2", { id: `${id}-title` }, title), shown) : null;
}

/** A table; cells are text or elements. `null` without rows. */
function table(header, rows, { short = false, numbers = [] } = {}) {
  if (!rows.length) return null;
  const cell = (content, n) => element("td", numbers.includes(n) ? { class: "number" } : {}, content);
  return element("div", { class: short ? "scroll short" : "scroll", tabindex: 0, role: "region", "aria-label": header.join(", ") || "table" },
    element("table", {},
      header.length ? element("thead", {}, element("tr", {}, header.map((title) => element("th", { scope: "col" }, title)))) : null,
      element("tbody", {}, rows.map((row) => element("tr", {}, row.map(cell))))));
}

/** A slider with its name and a reading. `say` puts the value into words, for eyes and screen readers. */
function slider(name, { min = 0, max, step = 1, value, say, wide = false, change }) {
  const input = element("input", { type: "range", min, max, step, "aria-label": name });
  const output = element("output", {});
  input.value = value;
  const show = () => {
    output.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => { show(); change(Number(input.value)); });
  show();
  const label = element("label", wide ? { class: "wide" } : {}, element("span", {}, name), input, output);
  return { label, input, set(next) { input.value = next; show(); } };
}

/** A number in few digits. */
function short(value, digits = 4) {
  return value === null || value === undefined ? "–" : String(Number(value.toPrecision(digits)));
}

/** Seconds, minutes or hours, whichever a person would say. */
function duration(hours) {
  if (hours === null) return "–";
  if (hours < 1 / 60) return `${Math.round(hours * 3600)} s`;
  return hours < 1 ? `${short(hours * 60, 2)} min` : `${short(hours, 3)} h`;
}
