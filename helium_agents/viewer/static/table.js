// The table of calls: sorted and filtered; only the lines that are seen are in the page.
"use strict";

const LINE = 28;

const COLUMNS = [
  { key: "number", title: "call", value: (run, at) => run.calls.number[at] },
  { key: "row", title: "row", value: (run, at) => run.calls.item[at] ?? -1, text: (run, at) => run.rowLabel(run.calls.item[at]).replace("row ", "") },
  { key: "operator", title: "operator", value: (run, at) => run.title(at), isText: true },
  { key: "state", title: "outcome", value: (run, at) => STATES[run.state(at)].word, node: (run, at) => stateLabel(run.state(at)), isText: true },
  { key: "asked", title: "asked at", value: (run, at) => run.calls.asked[at], text: (run, at) => seconds(run.calls.asked[at]) },
  { key: "queued", title: "queued", value: (run, at) => run.calls.sent[at] == null ? -1 : run.calls.sent[at] - run.calls.ready[at], text: (run, at) => run.calls.sent[at] == null ? "" : seconds(run.calls.sent[at] - run.calls.ready[at]) },
  { key: "engine", title: "on engine", value: (run, at) => run.calls.sent[at] == null ? -1 : run.calls.end[at] - run.calls.sent[at], text: (run, at) => run.calls.sent[at] == null ? "" : seconds(run.calls.end[at] - run.calls.sent[at]) },
  { key: "prompt", title: "prompt", value: (run, at) => run.calls.prompt[at], text: (run, at) => whole.format(run.calls.prompt[at]) },
  { key: "cached", title: "cached", value: (run, at) => run.calls.prompt[at] ? run.calls.cached[at] / run.calls.prompt[at] : -1, text: (run, at) => percent(run.calls.cached[at], run.calls.prompt[at]) },
  { key: "lost", title: "read again", value: (run, at) => run.lost(at), text: (run, at) => run.lost(at) ? whole.format(run.lost(at)) : "" },
  { key: "output", title: "answer", value: (run, at) => run.calls.output[at], text: (run, at) => whole.format(run.calls.output[at]) },
  { key: "finish", title: "ended by", value: (run, at) => run.word("finish", at), isText: true },
  { key: "error", title: "error", value: (run, at) => run.word("error", at), isText: true },
];

function tablePart(page) {
  const { run } = page;
  let places = [];
  const drawn = new Map();  // lines, by their place in the list
  let { sorting, focused, top } = { sorting: { key: "number", isDown: false }, focused: 0, top: 0, ...page.kept.table };
  const inputs = filterInputs(run, refilter);
  for (const [name, value] of Object.entries(page.kept.filter ?? {})) inputs[name].value = value;
  const told = h("span", { id: "num-listed", role: "status" });
  const body = h("div.lines", { role: "presentation" });
  const heads = COLUMNS.map((column) => h(column.isText ? "div" : "div.number", { role: "columnheader", "aria-sort": "none" },
    h("button.plain", { click: () => sort(column.key) }, column.title)));
  const scroller = h("div.scroller", { tabindex: "0", role: "table", "aria-label": "Calls; arrow keys move, Enter opens one", id: "calls", scroll: () => scrolled(), keydown: keys },
    h("div.line.heads", { role: "row" }, heads), body);

  function refilter() {
    focused = top = 0;
    scroller.scrollTop = 0;
    return apply();
  }

  async function apply() {
    const wanted = readFilter(inputs);
    page.kept.filter = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
    const found = [];
    const talks = wanted.text ? await run.texts() : null;
    for (let at = 0; at < run.size; at++) if (isWanted(run, at, wanted, talks)) found.push(at);
    places = found;
    order();
    const rest = run.is_part ? ` of ${whole.format(run.num_calls)}; the others are counted, not listed` : "";
    told.textContent = `${count(places.length, "call")}${places.length < run.size ? ` of ${whole.format(run.size)}` : rest}`;
    paint();
  }

  function sort(key) {
    sorting = { key, isDown: sorting.key === key ? !sorting.isDown : false };
    order();
    paint();
  }

  function order() {
    const column = COLUMNS.find((each) => each.key === sorting.key);
    const values = new Map(places.map((at) => [at, column.value(run, at)]));
    const sign = sorting.isDown ? -1 : 1;
    const compare = column.isText ? (one, other) => values.get(one).localeCompare(values.get(other)) : (one, other) => values.get(one) - values.get(other);
    places.sort((one, other) => sign * compare(one, other) || one - other);
    COLUMNS.forEach((each, at) => heads[at].setAttribute("aria-sort", each.key === sorting.key ? (sorting.isDown ? "descending" : "ascending") : "none"));
  }

  // Draw the lines that are seen, all of them anew.
  function paint() {
    body.replaceChildren();
    drawn.clear();
    scrolled();
  }

  // Lines that are seen already stay, so that scrolling makes a few at a time.
  function scrolled() {
    if (scroller.clientHeight) page.kept.table = { sorting, focused, top: scroller.scrollTop };
    const first = Math.max(0, Math.floor(scroller.scrollTop / LINE) - 6);
    const last = Math.min(places.length, first + Math.ceil((scroller.clientHeight || 600) / LINE) + 14);
    body.style.height = `${places.length * LINE}px`;
    scroller.setAttribute("aria-rowcount", places.length + 1);
    for (const [place, element] of drawn) {
      if (place >= first && place < last) continue;
      element.remove();
      drawn.delete(place);
    }
    let next = body.firstElementChild;
    for (let place = first; place < last; place++) {
      if (!drawn.has(place)) drawn.set(place, body.insertBefore(line(place), next));
      next = drawn.get(place).nextElementSibling;
    }
  }

  function line(place) {
    const at = places[place];
    const classes = `div.line${at === page.selected ? ".selected" : ""}${place === focused ? ".focused" : ""}`;
    return h(classes, { role: "row", "aria-rowindex": place + 2, "data-call": run.calls.number[at], "--top": `${place * LINE}px`,
      click: () => { focused = place; details.show(page, at, false); } },
      COLUMNS.map((column) => {
        const text = column.node ? column.node(run, at) : column.text ? column.text(run, at) : String(column.value(run, at));
        return h(column.isText ? "div" : "div.number", { role: "cell", title: typeof text === "string" && text.length > 14 ? text : null }, text);
      }));
  }

  function keys(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter" && event.target === scroller && places.length) details.show(page, places[focused]);
    if (by === undefined || event.target !== scroller) return;
    event.preventDefault();
    focused = Math.min(places.length - 1, Math.max(0, focused + by));
    const top = focused * LINE;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    if (top + 2 * LINE > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + 2 * LINE - scroller.clientHeight;
    paint();
  }

  apply();
  const element = h("section", { "aria-label": "Calls" }, h("p.controls.filters", {}, Object.entries(inputs).map(([name, input]) =>
    h("label", {}, `${FILTER_NAMES[name]} `, input)), told), scroller);
  const shown = () => {
    scroller.scrollTop = top;
    paint();
  };
  return { element, shown, select: paint,
    filter(values) {
      for (const [name, input] of Object.entries(inputs)) input.value = values[name] ?? "";
      return refilter();
    } };
}

const FILTER_NAMES = { operator: "operator", state: "outcome", finish: "ended by", row: "row", error: "error", text: "text" };

function filterInputs(run, apply) {
  const distinct = (value) => [...new Set(Array.from({ length: run.size }, (_, at) => value(at)))].filter(Boolean).sort();
  const select = (name, values, word = (value) => value) => h("select", { "data-filter": name, id: `filter-${name}`, change: apply },
    h("option", { value: "" }, "all"), values.map((value) => h("option", { value }, word(value))));
  let timer = 0;
  const later = () => { clearTimeout(timer); timer = setTimeout(apply, 150); };
  return {
    operator: select("operator", distinct((at) => run.operator(at))),
    state: select("state", distinct((at) => run.state(at)), (state) => `${STATES[state].mark} ${STATES[state].word}`),
    finish: select("finish", distinct((at) => run.word("finish", at))),
    row: h("input", { type: "number", min: 1, "data-filter": "row", id: "filter-row", input: later }),
    error: h("input", { type: "search", "data-filter": "error", id: "filter-error", placeholder: "part of it", input: later }),
    text: h("input", { type: "search", "data-filter": "text", id: "filter-text", placeholder: "in prompt or answer", input: later }),
  };
}

function readFilter(inputs) {
  const found = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]));
  return { ...found, error: found.error.toLowerCase(), text: found.text.toLowerCase(), hits: new Map() };
}

function isWanted(run, at, wanted, talks) {
  const item = run.calls.item[at];
  if (wanted.operator && run.operator(at) !== wanted.operator) return false;
  if (wanted.state && run.state(at) !== wanted.state) return false;
  if (wanted.finish && run.word("finish", at) !== wanted.finish) return false;
  if (wanted.row && (item == null || run.items.index[run.rowOf.get(item)] + 1 !== Number(wanted.row))) return false;
  if (wanted.error && !run.word("error", at).toLowerCase().includes(wanted.error)) return false;
  return !wanted.text || hasText(talks, talks.of_calls[run.calls.number[at]], wanted);
}

function hasText(talks, answer, { text, hits }) {
  if (answer == null) return false;
  const { messages, texts } = talks.answers[answer];
  const has = (number) => {
    if (!hits.has(number)) hits.set(number, talks.texts[number].toLowerCase().includes(text));
    return hits.get(number);
  };
  return (messages ?? []).some(([, number]) => has(number)) || texts.some(has);
}
