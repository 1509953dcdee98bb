// What every part of the page uses: elements, numbers in words, and how calls come out.
"use strict";

const STATES = {
  computed: { mark: "●", word: "computed", tells: "an engine computed it" },
  merged: { mark: "◆", word: "merged", tells: "a rule merged it with an equal call" },
  joined: { mark: "▲", word: "joined", tells: "it joined an equal call in flight" },
  memo: { mark: "★", word: "remembered", tells: "the memo or an earlier part of the run had it" },
  prefix: { mark: "◗", word: "cut", tells: "it was cut from a longer answer" },
  failed: { mark: "✕", word: "failed", tells: "it failed, or was given up" },
};

// An element; `attributes` with a function are listeners, other values are set as they are. Text
// is only ever set as text: what a prompt says is never taken for markup.
function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  return filled(element, attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name in STYLED) element.style.setProperty(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

const STYLED = { "--share": 1, "--state": 1, "--top": 1 };

const whole = new Intl.NumberFormat("en");

function count(number, thing) {
  return `${whole.format(number)} ${number === 1 ? thing : `${thing}s`}`;
}

function percent(part, all) {
  return all ? `${Math.round((100 * part) / all)}%` : "–";
}

function seconds(value) {
  if (value == null) return "–";
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
}

// A moment on an axis, told so exactly that its neighbours are told otherwise
function instant(time, step) {
  let digits = 0;
  while (digits < 6 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits++;
  if (step < 0.001) return `${(1000 * time).toFixed(digits - 3)} ms`;
  const at = time + step * 1e-6;
  if (at < 120) return `${time.toFixed(digits)} s`;
  const rest = step % 60 ? ` ${Math.max(0, time - 60 * Math.floor(at / 60)).toFixed(digits)} s` : "";
  if (at < 7200) return `${Math.floor(at / 60)} min${rest}`;
  return `${Math.floor(at / 3600)} h ${Math.floor((at % 3600) / 60)} min${rest}`;
}

function shortened(text, most) {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

// Of a name with dots the end tells it from others.
function shortenedName(name, most) {
  return name.length <= most || !name.includes(".") ? shortened(name, most) : `…${name.slice(1 - most)}`;
}

function stateLabel(state) {
  const { mark, word } = STATES[state];
  return h("span.state", { "data-state": state },
    h("span.mark", { "aria-hidden": "true" }, mark), word);
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A bar of parts with a legend: [{ key, word, mark, number }]
function shareBar(name, parts, total) {
  const shown = parts.filter((part) => part.number > 0);
  const told = shown.map((part) => `${part.word} ${whole.format(part.number)}`).join(", ");
  return h("div.share", {},
    h("div.bar", { role: "img", "aria-label": `${name}: ${told || "none"}` },
      shown.map((part) => h("span", { "data-part": part.key, "--share": part.number / total }))),
    h("ul.legend", {}, shown.map((part) => h("li", { title: part.tells },
      h("span.mark", { "data-part": part.key, "aria-hidden": "true" }, part.mark),
      `${part.word} ${whole.format(part.number)} (${percent(part.number, total)})`))));
}

const tip = {
  show(event, ...content) {
    const box = document.getElementById("tip");
    box.replaceChildren(...content);
    box.hidden = false;
    const { clientX: x, clientY: y } = event;
    const { offsetWidth: width, offsetHeight: height } = box;
    box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
    box.style.top = `${y + 18 + height > innerHeight ? y - height - 10 : y + 18}px`;
  },
  hide() {
    document.getElementById("tip").hidden = true;
  },
};
