// Elements by id, and new ones. Text is set as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** A new element with a class, a text, and what is in it. */
export function made(tag, { name = "", text } = {}, ...inside) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  element.append(...inside);
  return element;
}

/** Shows a text, or hides the element where there is none. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

/** 3 significant digits, no exponent. */
export const short = (number) =>
  number >= 100 ? Math.round(number).toLocaleString("en") : String(Number(number.toPrecision(number >= 10 ? 3 : 2)));

/** Seconds as milliseconds or seconds. */
export const time = (seconds) => (seconds >= 1 ? `${short(seconds)} s` : `${short(seconds * 1000)} ms`);

/** A line of the last readings, scaled to its largest one; a gap where there was nothing. */
export function spark(numbers, most = Math.max(...numbers.map((each) => each ?? 0))) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const x = (at) => (numbers.length > 1 ? (100 * at) / (numbers.length - 1) : 0).toFixed(1);
  const y = (value) => (28 - (26 * value) / (most || 1)).toFixed(1);
  let line = "";
  let ground = "";
  numbers.forEach((value, at) => {
    if (value === null) return;
    const begins = at === 0 || numbers[at - 1] === null;
    const ends = at === numbers.length - 1 || numbers[at + 1] === null;
    line += `${begins ? "M" : "L"}${x(at)} ${y(value)}`;
    ground += `${begins ? `M${x(at)} 30` : ""}L${x(at)} ${y(value)}${ends ? `L${x(at)} 30Z` : ""}`;
  });
  for (const [name, shape] of [["ground", ground], ["line", line]]) {
    const path = document.createElementNS(ns, "path");
    path.setAttribute("class", name);
    path.setAttribute("d", shape);
    svg.append(path);
  }
  return svg;
}
