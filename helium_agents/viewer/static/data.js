// Reads runs: from the page itself, or from the server that gave it.
"use strict";

async function unzipped(stream) {
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).json();
}

function embedded(name) {
  const element = document.querySelector(`script[data-name="${name}"]`);
  if (!element) return null;
  const bytes = Uint8Array.from(atob(element.textContent.trim()), (each) => each.charCodeAt(0));
  return unzipped(new Blob([bytes]).stream());
}

const isServed = !document.querySelector("script[data-name]");

// What has a name, or `undefined` where it is as it was when `known` was its tag.
async function fetched(name, known = null, query = "") {
  const headers = known ? { "If-None-Match": known } : {};
  const response = await fetch(`${name}${query}`, { headers, cache: "no-store" });
  if (response.status === 304) return undefined;
  if (!response.ok) throw new Error(await response.text());
  const found = await response.json();
  if (found) found.tag = response.headers.get("ETag");
  return found;
}

async function loaded(name, query = "") {
  return isServed ? fetched(name, null, query) : embedded(name);
}

// A run, with what is looked up in its columns.
class Run {
  constructor(place, data) {
    Object.assign(this, data);
    this.place = place;
    this.size = this.calls.number?.length ?? 0;
    this.places = new Map((this.calls.number ?? []).map((number, at) => [number, at]));
    this.rowOf = new Map(this.items.item.map((item, at) => [item, at]));
    this.content = null;
    // calls that waited for the same share one array
    if (this.size) this.calls.after = this.calls.after.map((number) => this.waited[number]);
    this.beginAtZero();
    this.end = this.load.times.at(-1) ?? 1;
    this.byItem = new Map();
    for (let at = 0; at < this.size; at++) {
      const item = this.calls.item[at];
      if (!this.byItem.has(item)) this.byItem.set(item, []);
      this.byItem.get(item).push(at);
    }
  }

  // The start of the engine is not what a person looks for: times count from the first request.
  beginAtZero() {
    const begin = this.load.times[0] ?? 0;
    const { asked, ready, sent, begun, first, end } = this.calls;
    const { opened, ended } = this.items;
    for (const times of [this.load.times, this.measured?.times, asked, ready, sent, begun, first, end, opened, ended]) {
      times?.forEach((time, at) => { if (time != null) times[at] = Math.max(0, time - begin); });
    }
    for (const part of this.parts) part.start_s = Math.max(0, part.start_s - begin);
    for (const moment of this.moments) moment.at_s = Math.max(0, moment.at_s - begin);
    for (const tool of this.tools) {
      tool.begun_s = Math.max(0, tool.begun_s - begin);
      tool.end_s = Math.max(0, tool.end_s - begin);
    }
  }

  word(column, at) {
    const number = this.calls[column][at];
    return number == null ? "" : this.names[number];
  }

  state(at) {
    return this.word("state", at);
  }

  // The operator in whose body a call was made; "" outside of any
  operator(at) {
    return this.word("path", at).split(" > ").pop();
  }

  // What stands on a call's box: the operator, or what is called where that is none
  title(at) {
    const label = this.word("label", at);
    const operator = this.operator(at);
    return label === "llm" ? operator || "llm" : label.split(":").pop();
  }

  rowLabel(item) {
    if (item == null) return "no row";
    const at = this.rowOf.get(item);
    return `row ${whole.format((at == null ? item : this.items.index[at]) + 1)}`;
  }

  lost(at) {
    return Math.max(0, this.calls.cacheable[at] - this.calls.cached[at]);
  }

  took(at) {
    return Math.max(0, this.calls.end[at] - this.calls.ready[at]);
  }

  // Prompts and answers are read when they are first needed, and again when a call is not in them.
  async texts(number) {
    this.content ??= loaded(`content-${this.place}`);
    const found = await this.content;
    if (number === undefined || number in found.of_calls || found.asked === this.tag) return found;
    found.asked = this.tag;
    this.content = null;
    return this.texts(number);
  }

  async conversation(at) {
    if (!this.calls.answered[at]) return null;
    const number = this.calls.number[at];
    const { answers, texts, of_calls: places } = await this.texts(number);
    const found = answers[places[number]];
    if (!found?.messages) return { messages: null, replies: [], tools: [] };
    return {
      messages: found.messages.map(([role, text]) => [role, texts[text]]),
      replies: found.texts.map((text) => texts[text]),
      tools: found.tools ?? [],
    };
  }
}
