// Two runs side by side: what became faster, what was computed again, and why.
"use strict";

function comparePart(page) {
  const { comparison, runs } = page;
  const [before, after] = runs;
  const change = (one, other) => (one && other ? `${(one / other).toFixed(2)}×` : "");
  const rows = [
    ["time", seconds(before.outcome.seconds), seconds(after.outcome.seconds), change(before.outcome.seconds, after.outcome.seconds)],
    ...["computed", "merged", "joined", "memo", "prefix", "failed"].map((key) =>
      [`calls ${STATES[key].word}`, before.counts[key] ?? 0, after.counts[key] ?? 0, ""]).filter(([, one, other]) => one || other),
    ...(before.num_below || after.num_below ? [["calls never made, answers of operators being known", before.num_below, after.num_below, ""]] : []),
    ["prompt tokens read", read(before), read(after), change(read(before), read(after))],
    ["tokens answered", before.tokens.output, after.tokens.output, change(before.tokens.output, after.tokens.output)],
  ];
  const isTold = runs.every((run) => run.num_calls && !run.num_below); // else operators may have answered that made no call
  const isOtherWork = isTold && comparison.operators.every(({ calls: [one, other] }) => !one || !other);
  const text = (value) => typeof value === "number" ? whole.format(value) : value;
  const element = h("section", { "aria-label": "Comparison" },
    h("h2", {}, `${before.name}, then ${after.name}`),
    plainTable(["figure", before.name, after.name, "times as fast, or as few"], rows.map((row) => row.map(text))),
    isOtherWork ? h("p.notes", {}, "The runs have no operator in common: their figures are of different work.") : null,
    h("h2", {}, "Computed again, and why"),
    reasonList(page),
    h("h2", {}, "Operators"),
    plainTable(["operator", "calls", "computed", "prompt tokens read", "tokens answered", "on the engine"],
      comparison.operators.map((row) => [row.name, pair(row.calls), pair(row.computed), pair(row.read_tokens), pair(row.output_tokens), row.engine_s.map(seconds).join(" → ")])),
    h("h2", {}, "Calls that changed most"),
    comparison.changes.length ? h("ul.changes", {}, comparison.changes.map((each) => changeItem(page, each)))
      : h("p.quiet", {}, "No call that both runs computed took notably longer or shorter."));
  return { element };
}

function read(run) {
  return run.tokens.prompt - run.tokens.hit;
}

function pair([one, other]) {
  return one === other ? whole.format(one) : `${whole.format(one)} → ${whole.format(other)}`;
}

function plainTable(heads, rows) {
  return h("table.plain", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", {}, cell))))));
}

function reasonList(page) {
  const { reasons } = page.comparison;
  if (!reasons.length) return h("p", { id: "reasons" }, "Nothing that the first run had answered was computed again.");
  return h("ul.losses", { id: "reasons" }, reasons.map((reason) => h("li", {},
    h("h3", {}, `${count(reason.number, "call")} of ${reason.operator || "no operator"}`, h("span.cost", {}, seconds(reason.seconds))),
    h("p", {}, reason.reason),
    reason.differences.length ? h("dl.facts", {}, reason.differences.flatMap(({ field, stored, asked }) => [
      h("dt", {}, field), h("dd", {}, h("div.before", {}, stored), h("div.after", {}, asked))])) : null,
    h("button", { click: () => page.showCall(1, reason.example) }, `Open call ${reason.example}`))));
}

function changeItem(page, { calls, seconds: [one, other], row, operator }) {
  const faster = one >= other;
  return h("li", {}, h("span.mark", { "data-part": faster ? "hit" : "lost", "aria-hidden": "true" }, faster ? "▼" : "▲"),
    ` ${operator || "llm"}${row == null ? "" : `, row ${row + 1}`}: ${seconds(one)} → ${seconds(other)} `,
    h("button.link", { click: () => page.showCall(0, calls[0]) }, "before"), " ",
    h("button.link", { click: () => page.showCall(1, calls[1]) }, "after"));
}
