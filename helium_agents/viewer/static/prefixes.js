// The prefix tree: prompts below one another, tokens to the right; what is shared is one block.
"use strict";

const TREE = { width: 900, height: 460 };
const MARKED = 4;  // lower blocks have no room for an edge or stripes

function prefixesPart(page) {
  const { run } = page;
  const trees = run.prefixes;
  const panel = h("div.prefix-text", { id: "prefix-text", "aria-live": "polite" },
    h("p.quiet", {}, "Point at a block, or reach it with Tab and the arrow keys, to read what its prompts share."));
  const drawings = trees.map((tree) => h("figure", {},
    h("figcaption", {}, `${tree.model}: ${count(tree.num_prompts, "prompt")}, the longest of ${count(tree.most_tokens, "token")}`),
    treeDrawing(page, tree, panel)));
  const element = h("section", { "aria-label": "Shared prefixes" },
    h("p.quiet", {}, "Each line is a prompt, read from left to right; prompts that begin alike stand together, and what they share is one block. Its area is the tokens that were asked."),
    h("p.legend", {}, [["hit", "from the cache"], ["lost", "read again: lost, or not yet there"], ["new", "read first"],
      ...(trees.some((tree) => TREE.height / tree.num_prompts < 0.4) ? [["rest", "goes on in ways too many to draw"]] : [])].map(([key, word]) =>
      h("span", {}, h("span.swatch", { "data-part": key, "aria-hidden": "true" }), word))),
    trees.length ? h("div.beside", {}, h("div", {}, drawings), h("div", {}, layoutAdvice(page), panel))
      : h("p.quiet", {}, "No engine told token ids of its prompts, so nobody knows what they share."));
  return { element };
}

function treeDrawing(page, tree, panel) {
  const wide = TREE.width / Math.max(1, tree.most_tokens);
  const high = TREE.height / Math.max(1, tree.num_prompts);
  const drawing = svg("svg", { class: "prefixes", viewBox: `0 0 ${TREE.width} ${TREE.height}`, preserveAspectRatio: "none",
    role: "group", "aria-label": `Prefix tree of ${tree.model}` },
    svg("defs", {}, svg("pattern", { id: `lost-${page.run.place}`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { width: 6, height: 6, class: "lost" }), svg("line", { x1: 0, y1: 0, x2: 0, y2: 6, class: "stripe" }))));
  let isFirst = true;
  const isThin = high < 0.4;
  for (let at = 0; isThin && at < tree.begin.length; at++) {
    const prompts = tree.end[at] - tree.begin[at];
    if (prompts * high < 0.4) continue;
    drawing.append(svg("rect", { class: "rest", x: tree.stop[at] * wide, y: tree.begin[at] * high, width: Math.max(0, tree.reach[at] - tree.stop[at]) * wide, height: prompts * high }));
  }
  for (let at = 0; at < tree.begin.length; at++) {
    const width = (tree.stop[at] - tree.start[at]) * wide;
    const height = (tree.end[at] - tree.begin[at]) * high;
    if (width < 0.4 || height < 0.4) continue;
    drawing.append(block(page, tree, at, panel, { x: tree.start[at] * wide, y: tree.begin[at] * high, width, height }, isFirst));
    isFirst = false;
  }
  drawing.addEventListener("keydown", (event) => walkTree(drawing, tree, event));
  return drawing;
}

function block(page, tree, at, panel, { x, y, width, height }, isFirst) {
  const tokens = (tree.stop[at] - tree.start[at]) * (tree.end[at] - tree.begin[at]);
  const prompts = tree.end[at] - tree.begin[at];
  const show = () => panel.replaceChildren(...blockText(page, tree, at));
  const group = svg("g", { class: "block", "data-at": at, tabindex: isFirst ? "0" : "-1", role: "button",
    "aria-label": `${count(prompts, "prompt")} share tokens ${tree.start[at]} to ${tree.stop[at]}: ${percent(tree.hit[at], tokens)} from the cache, ${percent(tree.lost[at], tokens)} read again`,
    mouseenter: show, focus: show, click: () => openBlock(page, tree, at),
    keydown: (event) => { if (event.key === "Enter") openBlock(page, tree, at); } });
  let top = y;
  for (const [part, number] of [["hit", tree.hit[at]], ["lost", tree.lost[at]], ["new", tokens - tree.hit[at] - tree.lost[at]]]) {
    const tall = (height * number) / Math.max(1, tokens);
    if (tall <= 0) continue;
    const fill = part === "lost" && height > MARKED ? `url(#lost-${page.run.place})` : null;
    group.append(svg("rect", { class: part, fill, x, y: top, width: Math.max(0.5, width - 0.6), height: tall }));
    top += tall;
  }
  group.append(svg("rect", { class: height > MARKED ? "edge" : "edge thin", x, y, width: Math.max(0.5, width - 0.6), height: Math.max(0.3, height) }));
  return group;
}

function blockText(page, tree, at) {
  const prompts = tree.end[at] - tree.begin[at];
  const each = tree.stop[at] - tree.start[at];
  const lost = tree.lost[at] ? `, ${whole.format(tree.lost[at])} read again though read before` : "";
  const head = prompts > 1 ? `${count(prompts, "prompt")} share these ${count(each, "token")}`
    : `${count(each, "token")} of one prompt alone`;
  const number = tree.calls[tree.begin[at]];
  const call = page.run.places.get(number);
  return [h("h3", {}, head),
    h("p", {}, `${whole.format(each * prompts)} tokens asked: ${whole.format(tree.hit[at])} from the cache${lost}.`),
    tree.text[at] ? h("pre", {}, tree.text[at]) : h("p.quiet", {}, prompts > 1 ? "Its text is not in the page; click for one of its calls." : "Click for the call."),
    call === undefined ? null : h("p.quiet", {}, `First of them: call ${number}, ${page.run.title(call)}.`)].filter(Boolean);
}

function openBlock(page, tree, at) {
  const call = page.run.places.get(tree.calls[tree.begin[at]]);
  if (call !== undefined) details.show(page, call);
}

// Right: to what follows; left: to what comes before; up and down: among those that follow the same.
function walkTree(drawing, tree, event) {
  const group = event.target.closest?.(".block");
  if (!group) return;
  const at = Number(group.dataset.at);
  const drawn = (place) => drawing.querySelector(`.block[data-at="${place}"]`);
  const like = (parent) => tree.parent.flatMap((each, place) => (each === parent && drawn(place) ? [place] : []))
    .sort((one, other) => tree.begin[one] - tree.begin[other]);
  const siblings = like(tree.parent[at]);
  const to = { ArrowRight: like(at)[0], ArrowLeft: tree.parent[at],
    ArrowDown: siblings[siblings.indexOf(at) + 1], ArrowUp: siblings[siblings.indexOf(at) - 1] }[event.key];
  const next = to === undefined ? null : drawn(to);
  if (!next) return;
  event.preventDefault();
  group.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

function layoutAdvice(page) {
  const { late, losses } = page.run;
  const found = losses.filter((loss) => loss.kind === "layout");
  if (!found.length) return h("div.card", {}, h("h3", {}, "Prompt layout"), h("p", {}, "Nothing to move: no large part of a prompt is shared that stands behind something that differs."));
  return h("div", { id: "layout-advice" }, found.map((loss) => {
    const part = late.find((each) => each.operator === loss.operator);
    return h("div.card", {}, h("h3", {}, `Prompt layout: ${loss.operator}`),
      h("p", {}, `${loss.what}.`),
      part ? h("div.moved", {},
        h("p", {}, `${count(part.prompts, "prompt")} that were looked at have this, behind what differs:`),
        h("div.order", {}, h("span", {}, "now"), h("span.differs", { title: part.before }, shortened(part.before || "what differs", 60)), h("span.shared", { title: part.shared }, shortened(part.shared, 160))),
        h("div.order", {}, h("span", {}, "better"), h("span.shared", { title: part.shared }, shortened(part.shared, 160)), h("span.differs", { title: part.before }, shortened(part.before || "what differs", 60)))) : null,
      h("p.advice", {}, h("strong", {}, `Saves about ${seconds(loss.seconds)}: `), `${loss.advice}.`));
  }));
}
