// Puts the page together: reads the runs, makes the parts, and follows a run that goes on.
"use strict";

const PARTS = { rows: ["Operators and rows", rowsPart], timeline: ["Timeline", timelinePart], prefixes: ["Shared prefixes", prefixesPart], table: ["All calls", tablePart], compare: ["Comparison", comparePart] };
const POLL_MS = 1000;

class Page {
  constructor(runs, comparison) {
    this.runs = runs;
    this.comparison = comparison;
    this.at = runs.length - 1;
    this.selected = null;
    this.kept = {};  // what a person has chosen, for when the page is drawn anew
    this.tab = runs.length > 1 ? "compare" : "rows";
  }

  get run() {
    return this.runs[this.at];
  }

  draw() {
    document.title = `${this.run.name} · helium view`;
    document.getElementById("head").replaceChildren(...this.head());
    const main = document.getElementById("main");
    const scroll = scrollY;
    const focused = document.activeElement?.id;
    this.made = {};
    for (const [name, [, make]] of Object.entries(PARTS)) {
      if (name !== "compare" || this.comparison) this.made[name] = make(this);
    }
    this.parts = Object.values(this.made);
    this.panels = Object.fromEntries(Object.entries(this.made).map(([name, part]) => [name,
      h("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, hidden: true }, part.element)]));
    this.tabs = Object.fromEntries(Object.keys(this.made).map((name) => [name,
      h("button.tab", { role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, click: () => this.open(name) }, PARTS[name][0])]));
    main.replaceChildren(this.notes(), overview(this),
      h("div.tabs", { role: "tablist", "aria-label": "Views", keydown: (event) => this.moveTab(event) }, Object.values(this.tabs)),
      ...Object.values(this.panels));
    this.open(this.made[this.tab] ? this.tab : "rows");
    scrollTo(0, scroll);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    document.body.dataset.ready = this.run.tag ?? "yes";
  }

  head() {
    const { run } = this;
    const parts = run.parts.length > 1 ? `, in ${run.parts.length} parts` : "";
    const ended = run.num_ended_items;
    const rows = run.num_rows ?? run.num_items;
    const items = rows ? `${ended < rows ? `${whole.format(ended)} of ` : ""}${count(rows, "row")}${run.num_failed_items ? `, ${run.num_failed_items} failed` : ""} · ` : "";
    return [h("div.name", {}, h("h1", {}, run.name),
      run.is_running ? h("span.live", { role: "status" }, "● goes on")
        : run.is_cut ? h("span.live", { role: "status" }, "ends in the middle") : null,
      h("span.quiet", {}, `${items}${count(run.num_calls, "call")} · ${seconds(run.outcome.seconds)}${parts}`)),
    h("div.controls", {},
      this.runs.length > 1 ? h("label", {}, "run ", h("select", { id: "which", change: (event) => this.use(Number(event.target.value)) },
        this.runs.map((each, at) => h("option", { value: at, selected: at === this.at }, each.name)))) : null,
      h("button", { click: () => this.recolor(), "aria-label": "Change between light and dark", title: "light or dark" }, "◐"))];
  }

  notes() {
    const { run } = this;
    const found = [];
    const missing = (run.num_rows ?? run.num_items) - run.num_ended_items;
    if (!run.is_running && missing > 0) {
      found.push(`Of ${count(missing, "row")} the trace does not tell the end: the run was stopped, or killed within a second of it.`);
    }
    found.push(...run.moments.map(momentText).filter(Boolean));
    if (run.parts.length > 1) {
      const starts = run.parts.slice(1).map((part) => seconds(part.start_s));
      found.push(`The run was stopped and went on ${run.parts.length - 1 === 1 ? "once" : `${run.parts.length - 1} times`} (after ${starts.join(", ")}); all parts are shown as one run.`);
    }
    if (run.is_part) {
      found.push(`It is long: everything is counted, and ${count(run.num_shown_items, "row")} of ${whole.format(run.num_items)} can be opened (failed and slow ones first, others evenly). `
        + "helium view --row N shows a row of your choice.");
    }
    return found.length ? h("div.notes", {}, found.map((text) => h("p", {}, text))) : h("div");
  }

  open(name) {
    this.tab = name;
    for (const [each, panel] of Object.entries(this.panels)) {
      panel.hidden = each !== name;
      this.tabs[each].setAttribute("aria-selected", String(each === name));
      this.tabs[each].setAttribute("tabindex", each === name ? "0" : "-1");
    }
    this.made[name].shown?.();
    tip.hide();
  }

  moveTab(event) {
    const names = Object.keys(this.tabs);
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    this.open(names[(names.indexOf(this.tab) + by + names.length) % names.length]);
    this.tabs[this.tab].focus();
  }

  use(at) {
    this.at = at;
    this.kept = {};
    details.hide(this);
    this.draw();
  }

  filter(values) {
    return this.made.table.filter(values);
  }

  showRow(item, at) {
    this.open("rows");
    this.made.rows.show(item, at);
    details.show(this, at, false);
    this.panels.rows.querySelector("#row-graph")?.scrollIntoView({ block: "nearest" });
  }

  showCall(place, number) {
    if (this.at !== place) this.use(place);
    const at = this.run.places.get(number);
    if (at !== undefined) this.showRow(this.run.calls.item[at], at);
  }

  recolor() {
    const isDark = getComputedStyle(document.documentElement).colorScheme.trim() === "dark";
    document.documentElement.dataset.theme = isDark ? "light" : "dark";
    for (const part of this.parts) part.recolor?.();
  }
}

function momentText({ kind, at_s: at, subject, detail, num_open: open }) {
  const why = detail ? `: ${detail}` : "";
  if (kind === "engine lost") return `The engine ${subject} died after ${seconds(at)} with ${count(open, "open request")}, which were asked again${why}`;
  if (kind === "misfit") return `What earlier runs had taught of ${subject} did not fit this one${why}`;
  return "";
}

async function main() {
  const names = await loaded("runs");
  const runs = await Promise.all(names.map(async (_, at) => new Run(at, await loaded(`run-${at}`))));
  const comparison = names.length > 1 ? await loaded("comparison") : null;
  const page = new Page(runs, comparison);
  page.draw();
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { tip.hide(); details.hide(page); }
  });
  if (isServed) follow(page);
}

// Ask the server again and again for what is new; a page that nobody looks at does not.
async function follow(page) {
  for (;;) {
    await new Promise((done) => setTimeout(done, page.runs.some((run) => run.is_running) ? POLL_MS : 4 * POLL_MS));
    if (document.hidden) continue;
    try {
      let isNew = false;
      for (const [at, run] of page.runs.entries()) {
        const found = await fetched(`run-${at}`, run.tag);
        if (!found) continue;
        page.runs[at] = new Run(at, found);
        page.runs[at].content = run.content;  // of calls that have ended nothing changes
        isNew = true;
      }
      if (isNew && page.comparison) page.comparison = await loaded("comparison");
      if (isNew) page.draw();
      document.body.classList.remove("is-lost");
    } catch {
      document.body.classList.add("is-lost");  // the server is gone; what was read stays
    }
  }
}

main().catch((error) => {
  document.getElementById("main").replaceChildren(h("pre.error", { role: "alert" }, `The run cannot be shown: ${error.message}`));
  throw error;
});
