// The timeline: what ran and waited, what the KV cache held, and each request on its slot.
"use strict";

const BAR = 18;
const MOST_LANES = 60;

function timelinePart(page) {
  const { run } = page;
  const charts = [];
  const holder = h("div.charts");
  const bars = barsOf(run);
  let byRow = page.kept.lanes === "row";
  let selected = page.selected;
  const kind = h("select", { id: "lanes", change: () => { page.kept.lanes = kind.value; byRow = kind.value === "row"; draw(); } },
    h("option", { value: "slot" }, "a line for each engine slot"), h("option", { value: "row", selected: byRow }, "a line for each row"));

  function draw() {
    const range = page.kept.range;
    for (const chart of charts.splice(0)) chart.destroy();
    holder.replaceChildren();
    if (!run.load.times.length) {
      holder.append(h("p.quiet", {}, "No engine was asked anything, so there is no timeline."));
      return;
    }
    const width = Math.max(300, holder.clientWidth || 900);
    const lines = loadCharts(run);
    for (const each of lines) charts.push(lineChart(each, run, width, zoomed));
    charts.push(barChart(page, bars, byRow, width, zoomed, () => selected));
    charts.forEach((chart, at) => holder.append(h("figure", {}, caption(lines[at] ?? { tells: "Each request" }), chart.root)));
    if (range && range.max - range.min < 0.99 * run.end) charts[0].setScale("x", range);
  }

  let isZooming = false;
  function zoomed(from) {
    if (isZooming) return;
    isZooming = true;
    const { min, max } = from.scales.x;
    for (const chart of charts) if (chart !== from) chart.setScale("x", { min, max });
    page.kept.range = max - min < 0.99 * run.end ? { min, max } : null;
    isZooming = false;
  }

  function keys(event) {
    const chart = charts[0];
    if (!chart || event.target.closest("select")) return;
    const { min, max } = chart.scales.x;
    const span = max - min;
    const to = { ArrowLeft: [min - span / 4, max - span / 4], ArrowRight: [min + span / 4, max + span / 4],
      "+": [min + span / 4, max - span / 4], "-": [min - span / 2, max + span / 2], 0: [0, run.end] }[event.key];
    if (!to) return;
    event.preventDefault();
    chart.setScale("x", { min: Math.max(0, to[0]), max: Math.min(run.end, to[1]) });
  }

  const estimated = run.calls.estimated?.some(Boolean);
  const element = h("section", { "aria-label": "Timeline" },
    h("p.quiet", {}, "Drag to zoom in, double-click to see all; with the keyboard ← → + − 0. Click a bar for its call."
      + (estimated ? " The engine told no first tokens: when a prompt had been read is estimated from what a step costs, the reading of others included." : "")),
    h("p.controls", {}, h("label", { for: "lanes" }, "Requests: "), kind, partLegend(run)),
    h("div", { tabindex: "0", role: "application", "aria-label": "Timeline: zoom with plus and minus, move with the arrow keys; the table has all of it as text", keydown: keys }, holder));
  new ResizeObserver(([entry]) => {
    const width = Math.max(300, entry.contentRect.width);
    for (const chart of charts) if (Math.abs(chart.width - width) > 2) chart.setSize({ width, height: chart.height });
  }).observe(holder);
  return { element, shown: draw, select: (at) => { selected = at; charts[charts.length - 1]?.redraw(); }, recolor: draw };
}

// What a chart shows, with the colours of its lines.
function caption({ tells, series = [], limit }) {
  return h("figcaption", {}, tells, h("span.legend", {},
    series.map(([word, key, , dash]) => h("span", {},
      h(dash ? "span.swatch.dashed" : "span.swatch", { "data-bar": key, "data-part": key, "aria-hidden": "true" }), word)),
    limit ? h("span", {}, h("span.swatch.dashed", { "data-bar": "failed", "aria-hidden": "true" }), `all that it holds: ${whole.format(limit)}`) : null));
}

function partLegend(run) {
  const waits = run.calls.begun?.some((begun, at) => begun > run.calls.sent[at]);
  const keys = { queue: "held back until it fits", ...(waits ? { wait: "waiting in the engine" } : {}), read: waits ? "prompt read" : "prompt read, with what came before it in the engine", write: "answer written", failed: "failed", ...(run.tools.length ? { tool: "tool (on rows)" } : {}) };
  return h("span.legend", {}, Object.entries(keys).map(([key, word]) =>
    h("span", {}, h("span.swatch", { "data-bar": key, "aria-hidden": "true" }), word)));
}

// What is above the bars: measured by the engine, where it tells its steps, or else worked out.
function loadCharts(run) {
  const { times, running, waiting, kv_tokens: needed, hit_share: hits } = run.load;
  const told = run.measured;
  const limit = run.engines.reduce((sum, engine) => sum + (engine.capacity?.kv_tokens ?? 0), 0) || null;
  const found = [told
    ? { name: "requests", tells: "Requests, measured by the engine", data: [told.times, told.running, told.waiting, told.held_back],
      series: [["in its batch", "write", 0.25], ["waiting in it", "read", 0.1], ["held back by the session", "queue", 0, [4, 3]]] }
    : { name: "requests", tells: "Requests, worked out from their times", data: [times, running, waiting],
      series: [["at the engine", "write", 0.25], ["held back by the session", "queue", 0.1]] }];
  if (told?.kv_tokens.length) {
    found.push({ name: "tokens", tells: "Tokens in the KV cache, measured by the engine", data: [told.times, told.kv_tokens], series: [["held by requests", "hit", 0.25]], limit });
  } else if (needed.length) {
    found.push({ name: "tokens", tells: "Tokens in the KV cache, worked out from prompts and times", data: [times, needed], series: [["needed by requests, shared ones once", "hit", 0.25]], limit });
  }
  if (told) {
    found.push({ name: "rates", tells: "Tokens computed in a second, measured by the engine", data: [told.times, told.prefill_rate, told.decode_rate],
      series: [["of prompts", "read", 0.25], ["of answers", "write"]] });
  }
  found.push({ name: "hits", tells: "Prompt tokens of all requests so far", data: [times, hits.map((share) => 100 * share)], series: [["percent from the cache", "hit", 0.12]], most: 100 });
  return found;
}

function axes(hasTime) {
  const stroke = color("quiet");
  const grid = { stroke: color("line"), width: 1 };
  return [{ stroke, grid, ticks: grid, show: hasTime, size: hasTime ? 34 : 0, font: "11px system-ui", values: (_, splits) => splits.map((at) => instant(at, splits.length > 1 ? splits[1] - splits[0] : 1)) },
    { stroke, grid, ticks: grid, size: 62, font: "11px system-ui" }];
}

function chartOptions(run, name, width, height, zoomed) {
  return { width, height, padding: [8, 14, 6, 0], class: `chart-${name}`, legend: { show: false }, ms: 1,
    cursor: { sync: { key: `time-${run.place}` }, drag: { x: true, y: false }, points: { show: false }, y: false },
    hooks: { setScale: [(chart, key) => { if (key === "x") zoomed(chart); }] } };
}

function lineChart({ name, data, series, limit, most: highest }, run, width, zoomed) {
  const options = chartOptions(run, name, width, 96, zoomed);
  const fill = (key, share) => share ? `color-mix(in srgb, ${color(key)} ${share * 100}%, transparent)` : undefined;
  options.scales = { x: { time: false }, y: { range: (_, __, most) => [0, highest ?? Math.max(1, most, limit && most > limit / 4 ? limit : 0) * 1.08] } };
  options.axes = axes(false);
  options.series = [{}, ...series.map(([label, key, share, dash]) => ({ label, stroke: color(key), fill: fill(key, share), width: 1.5, dash,
    points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }))];
  if (limit) options.hooks.draw = [(chart) => limitLine(chart, limit)];
  options.hooks.setCursor = [(chart) => {
    const at = chart.cursor.idx;
    if (at == null || !chart.cursor.event || !chart.over.matches(":hover")) return;
    tip.show(chart.cursor.event, h("div", {}, `after ${seconds(data[0][at])}`),
      ...series.map(([label], place) => h("div", {}, `${label}: ${whole.format(Math.round(data[place + 1][at]))}`)));
  }];
  const chart = new uPlot(options, data, document.createElement("div"));
  chart.over.addEventListener("mouseleave", tip.hide);
  return chart;
}

function limitLine(chart, limit) {
  const y = chart.valToPos(limit, "y", true);
  if (y < chart.bbox.top) return;
  chart.ctx.save();
  chart.ctx.strokeStyle = color("failed");
  chart.ctx.setLineDash([6, 4]);
  chart.ctx.beginPath();
  chart.ctx.moveTo(chart.bbox.left, y);
  chart.ctx.lineTo(chart.bbox.left + chart.bbox.width, y);
  chart.ctx.stroke();
  chart.ctx.restore();
}

// What was sent to an engine, in the order in which it began.
function barsOf(run) {
  const { begun } = run.calls;
  const found = [];
  for (let at = 0; at < run.size; at++) if (begun[at] != null) found.push(at);
  return found.sort((one, other) => begun[one] - begun[other]);
}

function lanesOf(run, bars, byRow) {
  if (!byRow) {
    const models = [...new Set(bars.map((at) => run.calls.model[at]))];
    const first = new Map();
    let number = 0;
    for (const model of models) {
      first.set(model, number);
      number += 1 + bars.reduce((most, at) => run.calls.model[at] === model ? Math.max(most, run.calls.slot[at]) : most, 0);
    }
    return { number, of: (at) => first.get(run.calls.model[at]) + run.calls.slot[at], name: (lane) => `${lane + 1}` };
  }
  const rows = new Map();
  for (const at of bars) if (!rows.has(run.calls.item[at])) rows.set(run.calls.item[at], rows.size);
  const names = [...rows.keys()];
  return { number: rows.size, ofItem: (item) => rows.get(item), of: (at) => rows.get(run.calls.item[at]), name: (lane) => names[lane] === undefined ? "" : run.rowLabel(names[lane]) };
}

function barChart(page, bars, byRow, width, zoomed, selected) {
  const { run } = page;
  const lanes = lanesOf(run, bars, byRow);
  const height = Math.min(MOST_LANES * 12, Math.max(90, lanes.number * BAR)) + 44;
  const options = chartOptions(run, "bars", width, height, zoomed);
  options.scales = { x: { time: false }, y: { range: [-0.5, Math.max(0.5, lanes.number - 0.5)], dir: -1 } };
  options.axes = axes(true);
  options.axes[1].values = (_, splits) => splits.map((at) => Number.isInteger(at) ? lanes.name(at) : "");
  options.axes[1].grid = { show: false };
  options.series = [{}, { paths: () => null, points: { show: false } }];
  options.hooks.draw = [(chart) => drawBars(chart, run, bars, lanes, selected())];
  const chart = new uPlot(options, [[0, run.end], [0, 0]], document.createElement("div"));
  const under = (event) => {
    const box = chart.over.getBoundingClientRect();
    const time = chart.posToVal(event.clientX - box.left, "x");
    const lane = Math.round(chart.posToVal(event.clientY - box.top, "y"));
    const near = (chart.scales.x.max - chart.scales.x.min) / chart.over.clientWidth;
    const hit = (start) => bars.findLast((at) => lanes.of(at) === lane && run.calls[start][at] - near <= time && time <= run.calls.end[at] + near);
    return hit("begun") ?? (byRow ? hit("ready") : undefined);
  };
  chart.over.addEventListener("mousemove", (event) => {
    const at = under(event);
    chart.over.style.cursor = at === undefined ? "" : "pointer";
    if (at === undefined) tip.hide(); else tip.show(event, ...callTip(run, at));
  });
  chart.over.addEventListener("mouseleave", tip.hide);
  chart.over.addEventListener("click", (event) => {
    const at = under(event);
    if (at !== undefined) details.show(page, at, false);
  });
  return chart;
}

function drawBars(chart, run, bars, lanes, selected) {
  const { ctx } = chart;
  const { ready, sent, begun, first, end } = run.calls;
  const { min, max } = chart.scales.x;
  const lane = Math.abs(chart.valToPos(1, "y", true) - chart.valToPos(0, "y", true));
  const tall = Math.max(1, lane * 0.76);
  const fills = { queue: color("queue"), wait: color("wait"), read: color("read"), write: color("write"), failed: color("failed"), tool: color("tool") };
  const x = (time) => chart.valToPos(time, "x", true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(chart.bbox.left, chart.bbox.top, chart.bbox.width, chart.bbox.height);
  ctx.clip();
  const part = (from, to, top, height, fill) => {
    ctx.fillStyle = fill;
    const left = x(from);
    ctx.fillRect(left, top, Math.max(x(to) - left, 1), height);
  };
  for (const tool of lanes.ofItem ? run.tools : []) {
    const own = lanes.ofItem(tool.item);
    if (own === undefined || tool.end_s < min || tool.begun_s > max) continue;
    part(tool.begun_s, tool.end_s, chart.valToPos(own, "y", true) - tall * 0.2, tall * 0.4, fills.tool);
  }
  const freeFrom = new Map();
  for (const at of bars) {
    if (end[at] < min || ready[at] > max) continue;
    const middle = chart.valToPos(lanes.of(at), "y", true);
    // on a slot others may have run while this one waited: then only the time after them is drawn
    const from = Math.max(ready[at], lanes.ofItem ? 0 : freeFrom.get(lanes.of(at)) ?? 0);
    freeFrom.set(lanes.of(at), end[at]);
    if (sent[at] > from) part(from, sent[at], middle - tall * 0.08, Math.max(1, tall * 0.16), fills.queue);
    if (begun[at] > Math.max(sent[at], from)) part(Math.max(sent[at], from), begun[at], middle - tall * 0.2, tall * 0.4, fills.wait);
    const hasFailed = run.state(at) === "failed";
    part(begun[at], first[at], middle - tall / 2, tall, hasFailed ? fills.failed : fills.read);
    part(first[at], end[at], middle - tall / 2, tall, hasFailed ? fills.failed : fills.write);
    if (at === selected) {
      ctx.strokeStyle = color("ink");
      ctx.lineWidth = 2;
      ctx.strokeRect(x(begun[at]), middle - tall / 2, Math.max(2, x(end[at]) - x(begun[at])), tall);
    }
  }
  ctx.restore();
}
