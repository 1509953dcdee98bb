// The executed DAG: operators first, then the calls of one row with what they waited for.
"use strict";

const MOST_BOXES = 300;
const MOST_ARROWS = 600;
const FEW_ARROWS = 16;  // more between two sets of calls meet in a joint

function rowsPart(page) {
  const { run } = page;
  const items = [...run.items.item];
  if (run.byItem.has(null)) items.push(null);
  let shown = items.includes(page.kept.item) ? page.kept.item : (items[0] ?? null);
  const graph = h("div", { id: "row-graph" });
  const title = h("h3", { "aria-live": "polite" });
  const picker = h("input", { type: "number", min: 1, id: "row-number",
    change: () => show(run.items.item[run.items.index.indexOf(Number(picker.value) - 1)]) });
  const step = (by) => show(items[Math.min(items.length - 1, Math.max(0, items.indexOf(shown) + by))]);
  const lasted = (item) => {
    const at = run.rowOf.get(item);
    return at == null || run.items.ended[at] == null ? -1 : run.items.ended[at] - run.items.opened[at];
  };

  function show(item, selected = null) {
    if (item === undefined || !items.includes(item)) {
      title.textContent = items.length ? "No calls of this row are in the page" : "No row has any calls.";
      return;
    }
    shown = item;
    page.kept.item = item;
    const at = run.rowOf.get(item);
    if (at != null) picker.value = run.items.index[at] + 1;
    const calls = run.byItem.get(item) ?? [];
    const took = lasted(item) >= 0 ? `, ${seconds(lasted(item))}` : "";
    title.textContent = `${item == null ? "Calls outside of rows" : run.rowLabel(item).replace("row", "Row")}: ${count(calls.length, "call")}${took}`;
    graph.replaceChildren(rowGraph(page, calls));
    if (at != null && run.items.error[at]) graph.prepend(h("pre.error", {}, run.items.error[at]));
    mark(selected);
  }

  function mark(at) {
    for (const box of graph.querySelectorAll(".box.selected")) box.classList.remove("selected");
    const box = at == null ? null : graph.querySelector(`.box[data-id="c${at}"]`);
    if (box) { box.classList.add("selected"); box.scrollIntoView({ block: "nearest", inline: "center" }); }
  }

  const failed = items.find((item) => run.items.error[run.rowOf.get(item)] || run.byItem.get(item)?.some((at) => run.state(at) === "failed"));
  const slowest = items.reduce((best, item) => (lasted(item) > lasted(best) ? item : best), items[0] ?? null);
  const element = h("section", { "aria-label": "Operators and rows" },
    h("h2", {}, "Operators"),
    h("p.quiet", {}, "Solid arrows: whose answers whose calls waited for. Dotted: who calls whom. ↻: calls that wait for others of the same operator, as in a loop."),
    operatorGraph(page),
    h("h2", {}, "The calls of a row"),
    h("p.controls", {}, h("label", { for: "row-number" }, "Row "), picker,
      h("button", { click: () => step(-1) }, "‹ previous"), h("button", { click: () => step(1) }, "next ›"),
      h("button", { click: () => show(slowest) }, "slowest"),
      failed === undefined ? null : h("button", { click: () => show(failed) }, "first with a failure")),
    title, graph);
  show(shown, page.selected);
  return { element, show, select: mark };
}

function operatorGraph(page) {
  const { operators, operator_waits: waits } = page.run;
  const edges = waits.map(([from, to, number]) => ({ from: `o${from}`, to: `o${to}`, kind: "data", note: whole.format(number) }));
  operators.forEach((row, at) => {
    const caller = operators.findIndex((other) => other.path.length === row.path.length - 1
      && other.path.every((name, place) => name === row.path[place]));
    if (caller >= 0 && row.path.length > 1) edges.push({ from: `o${caller}`, to: `o${at}`, kind: "call" });
  });
  const nodes = operators.map((row, at) => {
    const name = row.path[row.path.length - 1] ?? "outside of operators";
    const saved = row.num_merged + row.num_remembered;
    const note = row.num_calls ? `${count(row.num_calls, "call")}${saved ? `, ${whole.format(saved)} saved` : ""}` : "calls operators only";
    return {
      id: `o${at}`, title: name, note, state: row.num_failed ? "failed" : "", mark: row.num_failed ? "✕" : "",
      open: () => { page.filter({ operator: name }); page.open("table"); },
      tip: () => operatorTip(name, row),
    };
  });
  return nodes.length ? graphOf("Operators", nodes, edges) : h("p.quiet", {}, "No model was called.");
}

function operatorTip(name, row) {
  const computed = Math.max(1, row.num_computed);
  return [h("strong", {}, name),
    h("div", {}, `${whole.format(row.num_computed)} computed, ${whole.format(row.num_merged)} merged or joined, `
      + `${whole.format(row.num_remembered)} remembered, ${whole.format(row.num_failed)} failed`),
    h("div", {}, `${percent(row.cached_tokens, row.prompt_tokens)} of ${whole.format(row.prompt_tokens)} prompt tokens from the cache`),
    h("div", {}, `a call: queued ${seconds(row.queued_s / computed)}, on the engine ${seconds(row.engine_s / computed)}`),
    h("div.quiet", {}, "Click for its calls.")];
}

function rowGraph(page, calls) {
  const { run } = page;
  const shown = calls.slice(0, MOST_BOXES);
  const inside = new Set(shown);
  const nodes = shown.map((at) => callBox(page, at));
  const edges = [];
  const guests = new Map();
  addWaits(run, shown, inside, nodes, edges);
  for (const at of shown) {
    const leader = run.calls.leader_place[at];
    if (leader == null) continue;
    if (!inside.has(leader)) guests.set(leader, callBox(page, leader, true));
    edges.push({ from: `c${leader}`, to: `c${at}`, kind: "answer" });
  }
  nodes.push(...guests.values());
  addTools(run, shown, nodes, edges);
  const rest = calls.length - shown.length;
  const drawn = (edges.length > 3 * nodes.length ? withoutImplied(edges) : edges).slice(0, MOST_ARROWS);
  const hidden = edges.length - drawn.length;
  return h("div", {}, graphOf("Calls of the row", nodes, drawn),
    hidden ? h("p.quiet", {}, `${count(hidden, "more arrow")} ${hidden === 1 ? "is" : "are"} not drawn; a call tells what it waited for.`) : null,
    rest ? h("p.quiet", {}, `${count(rest, "later call")} of the row ${rest === 1 ? "is" : "are"} not drawn; the table has ${rest === 1 ? "it" : "them"}.`) : null);
}

// Arrows from calls to those that waited for them. Where many waited for the same many, as after a
// gather, all lead to a joint and on from there: arrows from each to each could not be laid out.
function addWaits(run, shown, inside, nodes, edges) {
  const { after, inputs } = run.calls;
  const together = new Map();
  for (const at of shown) together.set(after[at], [...(together.get(after[at]) ?? []), at]);
  for (const [waited, waiting] of together) {
    const before = waited.filter((each) => inside.has(each));
    if (before.length * waiting.length <= FEW_ARROWS || waiting.length === 1 || before.length === 1) {
      for (const at of waiting) for (const each of before) {
        edges.push({ from: `c${each}`, to: `c${at}`, kind: inputs[at].includes(each) ? "input" : "data" });
      }
      continue;
    }
    const id = `j${waiting[0]}`;
    const kind = inputs[waiting[0]].includes(before[0]) ? "input" : "data";
    nodes.push({ id, isJoint: true, title: `${count(waiting.length, "call")} waited for these ${before.length}` });
    edges.push(...before.map((each) => ({ from: `c${each}`, to: id, kind, isOpen: true })),
      ...waiting.map((at) => ({ from: id, to: `c${at}`, kind })));
  }
}

// Tools stand between the call of their body that ended last before them and what was asked next.
function addTools(run, shown, nodes, edges) {
  const { body, asked, end, item } = run.calls;
  run.tools.forEach((tool, place) => {
    if (!shown.length || tool.item !== item[shown[0]]) return;
    const near = shown.filter((at) => body[at] === tool.body);
    const before = near.filter((at) => end[at] <= tool.begun_s + 1e-3).sort((one, other) => end[other] - end[one])[0];
    const after = near.filter((at) => asked[at] >= tool.end_s - 1e-3).sort((one, other) => asked[one] - asked[other])[0];
    const id = `t${place}`;
    const took = seconds(tool.end_s - tool.begun_s);
    nodes.push({ id, title: tool.name, note: `tool · ${took}`, state: tool.error ? "failed" : "tool", mark: tool.error ? "✕" : "⚙",
      more: tool.error ? `failed: ${tool.error}` : "",
      tip: () => [h("strong", {}, `tool ${tool.name}`), h("div", {}, took), h("pre", {}, shortened(tool.error ?? tool.arguments ?? "", 400))] });
    const direct = edges.findIndex((edge) => edge.kind === "data" && edge.from === `c${before}` && edge.to === `c${after}`);
    if (direct >= 0) edges.splice(direct, 1);
    if (before !== undefined) edges.push({ from: `c${before}`, to: id, kind: "data" });
    if (after !== undefined) edges.push({ from: id, to: `c${after}`, kind: "data" });
  });
}

function callBox(page, at, isGuest = false) {
  const { run } = page;
  const { calls } = run;
  const state = run.state(at);
  const where = isGuest ? `${run.rowLabel(calls.item[at])} · ` : "";
  const tokens = calls.prompt[at] ? `${whole.format(calls.prompt[at])} → ${whole.format(calls.output[at])} tokens` : STATES[state].word;
  const time = calls.sent[at] == null ? "" : ` · ${seconds(run.took(at))}`;
  const early = calls.early[at] ? " · early" : "";
  return {
    id: `c${at}`, state, mark: STATES[state].mark, title: run.title(at), note: where + tokens + time + early,
    more: `call ${calls.number[at]}, ${STATES[state].word}`,
    says: run.calls.answered[at] ? saidBy(run, at) : null,
    open: () => details.show(page, at),
    tip: () => [...callTip(run, at), talkTip(run, at)],
  };
}

// The beginning of an answer, or "" where texts were not kept
async function saidBy(run, at) {
  const talk = await run.conversation(at);
  const said = talk.replies[0] || talk.tools.flat().map(([name]) => `${name}(…)`).join(", ");
  return said ? `“${said.replace(/\s+/g, " ")}”` : "";
}
