// What a stranger reads first: what came of the run, where the time went, and what to change.
"use strict";

const LOSS_TAB = { cache: "prefixes", uncached: "prefixes", layout: "prefixes", loop: "rows", cut: "table", idle: "timeline", repeated: "table" };
const LOSS_NAME = {
  cache: "Prompts were read again that the cache had lost",
  uncached: "Nothing is known to have come from a prefix cache",
  layout: "What prompts share comes too late in them",
  loop: "A loop always runs to its limit",
  cut: "Answers were cut",
  idle: "The engine had too little to do",
  repeated: "The same was computed several times",
};

function overview(page) {
  const { run } = page;
  return h("section", { "aria-label": "Overview" },
    h("div.tiles", {}, callsTile(run), tokensTile(run), timeTile(run)),
    h("h2", {}, "What to change"),
    lossList(page));
}

function callsTile(run) {
  const total = Object.values(run.counts).reduce((sum, number) => sum + number, 0);
  const parts = Object.entries(STATES).map(([key, state]) => ({
    key, ...state, number: run.counts[key] ?? 0 }));
  return h("article.tile", {}, h("h2", {}, "Model calls"),
    h("p.figure", { id: "num-calls" }, whole.format(total)),
    shareBar("Model calls", parts, total),
    run.num_below ? h("p.quiet", {}, `${count(run.num_below, "more call")} of the plain program were never made: the answers of operators were known.`) : null);
}

/** What is said of a figure that is not of the whole run. */
function ofShown(run) {
  return run.is_part ? " (of the rows that are shown)" : "";
}

function tokensTile(run) {
  const { prompt, hit, lost, output } = run.tokens;
  const parts = [
    { key: "hit", mark: "▬", word: "from the cache", number: hit, tells: "the engine had them in its KV cache" },
    { key: "lost", mark: "▨", word: "read again", number: lost, tells: "read before, and lost or not yet there" },
    { key: "new", mark: "▭", word: "read first", number: prompt - hit - lost, tells: "nothing before began so" },
  ];
  return h("article.tile", {}, h("h2", {}, `Prompt tokens of computed calls${ofShown(run)}`),
    h("p.figure", {}, whole.format(prompt), h("small", {}, ` + ${whole.format(output)} answered`)),
    shareBar("Prompt tokens", parts, prompt));
}

function timeTile(run) {
  const took = run.outcome.seconds;
  const rows = [["as it was", took, "was"]];
  const fits = run.bounds && Math.max(run.bounds.work_s, run.bounds.chain_s) <= 1.1 * took;
  if (fits) {
    const { work_s: work, lost_s: lost, chain_s: chain } = run.bounds;
    if (lost > 0.01 * took) rows.push(["reading again what was lost", lost, "lost"]);
    rows.push(["engine always full, nothing lost", work, "bound"], ["longest chain of calls, alone", chain, "bound"]);
  }
  const most = Math.max(...rows.map(([, value]) => value), 1e-9);
  const mean = run.outcome.mean_s;
  return h("article.tile", {}, h("h2", {}, "Time"),
    h("p.figure", {}, seconds(took), mean == null ? null : h("small", {}, ` · a row ${seconds(mean)} on average, 95% within ${seconds(run.outcome.p95_s)}`)),
    h("table.bounds", {}, h("caption.hidden", {}, "The time beside what it could be at least"),
      h("tbody", {}, rows.map(([name, value, kind]) => h("tr", {},
        h("th", { scope: "row" }, name),
        h("td", {}, h("span.line", { "data-part": kind, "--share": value / most })),
        h("td.number", {}, seconds(value)))))),
    run.bounds ? h("p.quiet", {}, fits
      ? "No order of the calls is faster than the two lower lines, by what a step of the engine was measured to take."
      : "By what a step of the engine was measured to take it could not have been so fast: no bound can be told.") : null);
}

function lossList(page) {
  const { run } = page;
  const part = ofShown(run);
  if (!run.losses.length) {
    return h("p", { id: "losses" }, run.counts.computed
      ? "No large loss was found: no change that is looked for would save more than two percent of the time, nor 50 ms."
      : run.counts.failed ? "No engine computed anything: see why the calls failed." : "No engine was asked, so no time was lost on one.");
  }
  return h("ol.losses", { id: "losses" }, run.losses.map((loss) => h("li", { "data-loss": loss.kind },
    h("h3", {}, `${LOSS_NAME[loss.kind] ?? loss.kind}${part}`, h("span.cost", {}, `costs about ${seconds(loss.seconds)}`)),
    h("p", {}, `${loss.what}.`),
    h("p.advice", {}, h("strong", {}, "What to do: "), `${loss.advice}.`),
    h("button", { click: () => showLoss(page, loss) }, "Show where"))));
}

function showLoss(page, loss) {
  const { run } = page;
  if (loss.kind === "cut") page.filter({ operator: loss.operator, finish: "length" });
  if (loss.kind === "repeated") page.filter({ state: "computed" });
  if (loss.kind === "loop") {
    const at = run.calls.number.findIndex((_, each) => run.operator(each) === loss.operator);
    if (at >= 0) { page.showRow(run.calls.item[at], at); return; }
  }
  page.open(LOSS_TAB[loss.kind] ?? "timeline");
  page.tabs[page.tab].focus({ preventScroll: true });
  page.tabs[page.tab].parentElement.scrollIntoView();
}
