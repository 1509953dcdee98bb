// Draws graphs: boxes laid out by dagre as SVG, to be reached with the pointer and the keyboard.
"use strict";

const BOX = { width: 184, height: 44 };
const TALL = 61;
const JOINT = 8;
const TITLE = 21; // letters

// nodes: [{ id, title, note, state, mark, more, says, tip(), open() }] or joints [{ id, title, isJoint }],
// edges: [{ from, to, kind, note, isOpen }]; open ones have no head
function graphOf(name, nodes, edges) {
  if (!nodes.length) return h("p.quiet", {}, "No calls.");
  const layout = new dagre.graphlib.Graph({ multigraph: true });
  layout.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 46, marginx: 8, marginy: 8 });
  layout.setDefaultEdgeLabel(() => ({}));
  for (const node of nodes) layout.setNode(node.id, node.isJoint ? { width: JOINT, height: JOINT } : { width: BOX.width, height: node.says ? TALL : BOX.height });
  for (const edge of edges) if (edge.from !== edge.to) layout.setEdge(edge.from, edge.to, {}, edge.kind);
  dagre.layout(layout);
  const { width = 10, height = 10 } = layout.graph();
  const loops = new Map(edges.filter((edge) => edge.from === edge.to).map((edge) => [edge.from, edge]));
  const drawing = svg("svg", {
    class: "graph", viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`, role: "group", "aria-label": name,
    width: Math.ceil(width), height: Math.ceil(height) },
    svg("defs", {}, svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" },
      svg("path", { d: "M0 0L8 4L0 8z", class: "arrow" }))));
  for (const edge of edges) if (edge.from !== edge.to) drawing.append(edgeOf(layout, edge));
  for (const node of nodes) drawing.append(node.isJoint ? jointOf(layout.node(node.id), node) : boxOf(layout.node(node.id), node, loops.get(node.id)));
  drawing.addEventListener("keydown", (event) => moveFocus(drawing, event));
  const first = drawing.querySelector(".box");
  if (first) first.setAttribute("tabindex", "0");
  return h("div.graph-box", {}, drawing);
}

// The edges without those that others, one after another, imply: a dense graph could not be laid out.
function withoutImplied(edges) {
  const into = new Map();
  for (const { from, to } of edges) into.set(to, [...(into.get(to) ?? []), from]);
  const above = new Map();
  const ancestors = (id) => {
    if (above.has(id)) return above.get(id);
    const found = new Set();
    above.set(id, found);
    for (const from of into.get(id) ?? []) {
      found.add(from);
      for (const each of ancestors(from)) found.add(each);
    }
    return found;
  };
  return edges.filter(({ from, to }) => !into.get(to).some((other) => other !== from && ancestors(other).has(from)));
}

function edgeOf(layout, edge) {
  const { points } = layout.edge(edge.from, edge.to, edge.kind);
  const path = points.map(({ x, y }, at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const middle = points[Math.floor(points.length / 2)];
  return svg("g", { class: "edge", "data-kind": edge.kind },
    svg("path", { d: path, "marker-end": edge.isOpen ? null : "url(#arrow)" }),
    edge.note ? svg("text", { x: middle.x, y: middle.y - 4 }, edge.note) : null);
}

function jointOf({ x, y }, { title }) {
  return svg("circle", { class: "joint", cx: x.toFixed(1), cy: y.toFixed(1), r: JOINT / 2 }, svg("title", {}, title));
}

function boxOf(place, node, loop) {
  const x = place.x - BOX.width / 2;
  const y = place.y - place.height / 2;
  const says = node.says ? svg("text", { x: 10, y: 52, class: "says" }) : null;
  const box = svg("g", {
    class: "box", "data-state": node.state ?? "", "data-id": node.id, tabindex: "-1", role: "button",
    transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
    click: () => node.open?.(),
    mousemove: (event) => tip.show(event, ...node.tip()),
    mouseleave: tip.hide,
    keydown: (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); node.open?.(); }
    } },
    svg("rect", { width: BOX.width, height: place.height, rx: 6 }),
    svg("text", { x: 10, y: 18, class: "title" },
      svg("tspan", { class: "mark", "aria-hidden": "true" }, node.mark ? `${node.mark} ` : ""), shortenedName(node.title, TITLE)),
    svg("text", { x: 10, y: 35, class: "note" }, shortened(node.note, 30)), says,
    loop ? svg("text", { x: BOX.width - 8, y: 18, class: "loop" }, `↻ ${loop.note}`) : null);
  speak(box, node);
  node.says?.then((text) => {
    says.textContent = shortened(text, 27);
    speak(box, node);
  });
  return box;
}

// A box is spoken as it is read, so that it can be asked for by what is seen, and then what else it is.
function speak(box, node) {
  const seen = [...box.querySelectorAll("text")].map((text) =>
    [...text.childNodes].filter((part) => part.nodeType === Node.TEXT_NODE).map((part) => part.data).join(""));
  box.setAttribute("aria-label", [...seen, node.title.length > TITLE ? node.title : "", node.more].filter(Boolean).join(" "));
}

// One box of a graph can be reached by Tab, the others from it by the arrow keys.
function moveFocus(drawing, event) {
  const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  const from = event.target.closest?.(".box");
  if (!step || !from) return;
  event.preventDefault();
  const center = (box) => { const at = box.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; };
  const [x, y] = center(from);
  let best = null;
  let least = Infinity;
  for (const box of drawing.querySelectorAll(".box")) {
    const [toX, toY] = center(box);
    const along = (toX - x) * step[0] + (toY - y) * step[1];
    const aside = Math.abs((toX - x) * step[1]) + Math.abs((toY - y) * step[0]);
    if (along > 4 && along + 2 * aside < least) { best = box; least = along + 2 * aside; }
  }
  if (best) {
    from.setAttribute("tabindex", "-1");
    best.setAttribute("tabindex", "0");
    best.focus();
  }
}
