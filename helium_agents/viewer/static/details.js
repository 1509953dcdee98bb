// The selected call: its times and tokens, what it was asked and answered, and whom it waited for.
"use strict";

const details = {
  async show(page, at, focus = true) {
    const run = page.run;
    const box = document.getElementById("details");
    page.selected = at;
    const calls = run.calls;
    const heading = h("h2", { tabindex: "-1" }, `Call ${calls.number[at]} · ${run.title(at)}`);
    box.replaceChildren(h("div", {},
      h("div.details-head", {}, heading,
        h("button.plain", { click: () => details.hide(page), "aria-label": "Close" }, "✕")),
      h("p", {}, stateLabel(run.state(at)), ` · ${STATES[run.state(at)].tells}`),
      details.links(page, at),
      run.word("error", at) ? h("pre.error", {}, run.word("error", at)) : null,
      h("dl.facts", {}, details.facts(run, at).flatMap(([name, value]) => [
        h("dt", {}, name), h("dd", {}, value)])),
      h("div.conversation", {}, h("p.quiet", {}, "Reading ...")),
    ));
    box.hidden = false;
    document.body.classList.add("has-details");
    if (focus) heading.focus({ preventScroll: true });
    for (const part of page.parts) part.select?.(at);
    const talk = await run.conversation(at);
    if (page.selected === at) box.querySelector(".conversation")?.replaceWith(details.talk(talk, calls.sent[at] != null));
  },

  hide(page) {
    document.getElementById("details").hidden = true;
    document.body.classList.remove("has-details");
    page.selected = null;
    for (const part of page.parts) part.select?.(null);
  },

  links(page, at) {
    const { run } = page;
    const { number, leader_place: place, item, after } = run.calls;
    const found = [h("button", { click: () => page.showRow(item[at], at) },
      `Show in ${run.rowLabel(item[at])}`)];
    if (place[at] != null) {
      found.push(h("button", { "data-leader": true, click: () => page.showRow(item[place[at]], place[at]) },
        `Go to the call that asked: ${number[place[at]]}, ${run.rowLabel(item[place[at]])}`));
    }
    if (after[at].length) {
      found.push(h("span", {}, "waited for ", after[at].slice(0, 12).flatMap((each) => [
        h("button.link", { click: () => details.show(page, each) }, String(run.calls.number[each])), " "])));
    }
    return h("p.links", {}, found);
  },

  facts(run, at) {
    const { calls } = run;
    const found = [["asked", `after ${seconds(calls.asked[at])}`]];
    if (calls.ready[at] - calls.asked[at] > 1e-3) found.push(["ready", `after ${seconds(calls.ready[at])}, when what it needs was there`]);
    if (calls.sent[at] != null) {
      found.push(["held back", seconds(calls.sent[at] - calls.ready[at])], ...details.phases(run, at));
    }
    if (calls.below[at]) found.push(["never made", `${count(calls.below[at], "model call")} that would have led to it`]);
    if (calls.prompt[at] || calls.output[at]) found.push(...details.tokens(run, at));
    if (run.word("model", at)) found.push(["model", run.word("model", at)]);
    if (calls.early[at]) found.push(["computed early", earlyOf(calls.early[at])]);
    if (calls.attempts[at] > 1) found.push(["asked an engine", `${calls.attempts[at]} times`]);
    found.push(["operators", run.word("path", at) || "none"]);
    return found;
  },

  phases(run, at) {
    const { sent, begun, first, end, estimated } = run.calls;
    if (run.state(at) === "failed") return [["on the engine", seconds(end[at] - sent[at])]];
    const about = estimated[at] ? "about " : "";
    return [...(begun[at] > sent[at] ? [["waited in the engine", seconds(begun[at] - sent[at])]] : []),
      ["prompt read in", about + seconds(first[at] - begun[at])],
      ["answered in", about + seconds(end[at] - first[at])]];
  },

  tokens(run, at) {
    const { calls } = run;
    const prompt = `${count(calls.prompt[at], "token")}, ${whole.format(calls.cached[at])} from the cache`
      + (run.lost(at) ? `, ${whole.format(run.lost(at))} lost` : "");
    const limit = calls.limit[at] == null ? "" : ` of at most ${whole.format(calls.limit[at])}`;
    const finish = run.word("finish", at);
    const isCut = finish.includes("length") ? ", cut there" : "";
    return [["prompt", prompt], ["answer", `${count(calls.output[at], "token")}${limit}${isCut}`]];
  },

  talk(talk, wasAsked) {
    if (talk == null) {
      return h("p.quiet", {}, `No engine ${wasAsked ? "answered" : "was asked"}, so the trace has no prompt of this call.`);
    }
    if (talk.messages == null) {
      return h("p.quiet", {}, "Texts were not kept: the run was traced with --trace-content off.");
    }
    const block = (role, text) => h("section.message", { "data-role": role },
      h("h3", {}, role), h("pre", { tabindex: "0" }, text));
    const answers = talk.replies.map((text, at) =>
      block(talk.replies.length > 1 ? `answer ${at + 1}` : "answer", text));
    const tools = talk.tools.flat().map(([name, given]) => block(`calls tool ${name}`, given));
    return h("div.conversation", {},
      talk.messages.map(([role, text]) => block(role, text)), answers, tools);
  },
};

// Of a call that had been computed before it was asked for: since when, and who had guessed it
function earlyOf([saved_s, source]) {
  return `for ${seconds(saved_s)} before it was asked, as guessed by ${source}`;
}

// The end of what a call was asked and the beginning of its answer, where texts were kept
function talkTip(run, at) {
  const lines = h("div.talk");
  run.conversation(at).then((talk) => {
    if (!talk?.messages) return;
    const [role, asked] = talk.messages.at(-1);
    const said = talk.replies[0] || talk.tools.flat().map(([name]) => `${name}(…)`).join(", ");
    const end = asked.length <= 240 ? asked : `…${asked.slice(-239)}`;
    lines.append(h("div", {}, h("strong", {}, `${role}: `), end), h("div", {}, h("strong", {}, "answer: "), shortened(said, 240)));
  });
  return lines;
}

// A few lines about a call, for a pointer that is over it
function callTip(run, at) {
  const { calls } = run;
  const lines = [h("strong", {}, `${run.title(at)} · call ${calls.number[at]}`),
    h("div", {}, stateLabel(run.state(at)), ` · ${run.rowLabel(calls.item[at])}`)];
  if (calls.sent[at] != null && run.state(at) !== "failed") {
    const about = calls.estimated[at] ? "about " : "";
    lines.push(h("div", {}, `waited ${seconds(calls.begun[at] - calls.ready[at])}, prompt ${about}`
      + `${seconds(calls.first[at] - calls.begun[at])}, answer ${seconds(calls.end[at] - calls.first[at])}`));
  }
  if (calls.early[at]) lines.push(h("div", {}, `computed early ${earlyOf(calls.early[at])}`));
  if (calls.prompt[at]) {
    lines.push(h("div", {}, `${count(calls.prompt[at], "prompt token")}, ${percent(calls.cached[at], calls.prompt[at])} `
      + `cached; ${count(calls.output[at], "token")} of answer`));
  }
  if (run.word("error", at)) lines.push(h("div", {}, shortened(run.word("error", at), 200)));
  return lines;
}
