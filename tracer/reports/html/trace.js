// The page of one trace.

let chosen = null;

function showTrace(trace, number, alone) {
  const view = { every: false, proportional: false };
  const pick = (row) => showCall(trace, row);
  const byPosition = (position) => pick({ call: trace.calls[position], count: 1 });
  const page = $("trace");
  const ladder = el("div", { id: "ladder" }), waterfall = el("div", { id: "waterfall" });
  const draw = () => {
    const width = Math.max(300, page.clientWidth);
    ladder.replaceChildren(drawLadder(trace, { ...view, width, pick }));
    waterfall.replaceChildren(drawWaterfall(trace, { ...view, pick }));
  };
  page.replaceChildren(
    alone ? "" : walk(number),
    el("h1", { class: trace.verdict }, el("i", { class: "mark" }), trace.name || trace.id,
      el("span", { class: "verdict" }, `${trace.verdict} · ${trace.outcome}${trace.stopped ? ` · stopped at ${trace.stopped}` : ""}`)),
    trace.deviations.length && trace.summary.includes(trace.deviations[0].message) ? "" : el("p", { class: "summary-line" }, trace.summary),
    findings(trace, byPosition),
    facts(trace),
    el("h2", {}, "Ladder"), tools(trace, view, draw), ladder,
    el("h2", {}, "Steps"), stepTable(trace, byPosition),
    el("h2", {}, "Durations"), waterfall,
    el("h2", {}, "Elsewhere"), elsewhere(trace),
  );
  page.hidden = false;
  draw();
  page.redraw = draw;
}

function walk(number) {
  const order = shownRows().map((row) => Number(row.dataset.n)), at = order.indexOf(number);
  const link = (n, words) => n === undefined ? el("span", { class: "quiet" }, words) : el("a", { href: `#trace-${n}` }, words);
  return el("nav", { class: "walk" }, el("a", { href: "#" }, "← all creations"), el("span", { class: "grow" }),
    link(order[at - 1], "‹ previous"), el("span", { class: "quiet" }, at < 0 ? "" : `${at + 1} of ${order.length}`), link(order[at + 1], "next ›"));
}

function findings(trace, show) {
  const found = trace.deviations.map(({ kind, step, message, call, expected }) => el("li", { class: "finding" },
    el("span", { class: "kind" }, `${kind}${step ? ` ${step}` : ""}`), message,
    call < 0 ? null : el("button", { class: "copy", type: "button", on: { click: () => show(call) } }, "show the call"),
    expected.map((line, n) => el("span", { class: "expected" }, `${n ? "or" : "expected"} ${line}`))));
  const notes = trace.notes.map(([kind, step, message, call]) => el("li", {}, `${kind}${step ? ` ${step}` : ""}: ${message}`,
    call < 0 ? null : el("button", { class: "copy", type: "button", on: { click: () => show(call) } }, "show the call")));
  return el("div", {}, found.length ? el("ul", { class: "findings" }, found) : null, notes.length ? el("ul", { class: "notes" }, notes) : null);
}

function facts(trace) {
  const made = trace.ids.map(([what, id]) => [what, [el("code", {}, id), copyButton(id)]]);
  made.push(["started (UTC)", [(trace.started || "?").replace("T", " ").replace("Z", "")]], [trace.outcome === "stuck" || trace.outcome === "unfinished" ? "last call after" : "took", [duration(trace.took)]]);
  if (trace.api) made.push(["nova-api at", [trace.api]]);
  trace.attempts.forEach(([host, stopped, error, since, took], n) => {
    const words = [`from ${offset(since)} s`, duration(took) && `for ${duration(took)}`, stopped && `stopped at ${stopped}`].filter(Boolean).join(", ");
    made.push([trace.attempts.length > 1 ? `attempt ${n + 1}` : stopped ? "tried on" : "built on", [host, el("span", { class: stopped ? "text-deviates" : "quiet" }, error && trace.attempts.length > 1 ? `${words}: ${error}` : words)]]);
  });
  return el("dl", { class: "facts" }, made.map(([what, value]) => el("div", {}, el("dt", {}, what), el("dd", {}, value))));
}

function tools(trace, view, draw) {
  const aside = trace.calls.filter((call) => call.step < 0).length;
  const box = (name, words) => el("label", {}, el("input", { type: "checkbox", name, on: { change: (event) => { view[name] = event.target.checked; draw(); } } }), words);
  return el("div", { class: "ladder-tools" },
    aside && aside < trace.calls.length ? box("every", `with the ${aside} calls outside the documented steps`) : null,
    box("proportional", "time to scale"),
    trace.planes.map((plane, n) => el("span", { class: `legend ink-${n % 5}` }, el("i"), plane)),
    trace.marks.some((mark) => mark.ends.length) ? el("span", { class: "legend" }, el("i", { class: "dashed" }), "expected, never came") : null);
}

function stepTable(trace, show) {
  const words = { seen: "ok", not_reached: "not reached", failed: "FAILED", missing: "MISSING", owed: "OWED" };
  const heads = ["step", "what", "status", "since", "took", trace.usual && "usual", "calls"].filter(Boolean)
    .map((name) => el("th", { class: ["since", "took", "usual"].includes(name) ? "number" : "" }, name));
  return el("table", { class: "step-table" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, trace.steps.map((step) => el("tr", {},
    el("th", { scope: "row" }, step.step), el("td", {}, step.title),
    el("td", { class: `status status-${step.status}` }, words[step.status] || step.status),
    el("td", { class: "number since" }, offset(step.since)), el("td", { class: `number took${step.slow ? " slow" : ""}` }, duration(step.took)),
    trace.usual ? el("td", { class: "number quiet usual" }, duration(step.usual)) : null,
    el("td", { class: "calls" }, callsOf(trace, step, show), step.reason && el("span", { class: "quiet" }, step.reason))))));
}

// The calls of a step, alike ones once; those that failed first.
function callsOf(trace, step, show) {
  const shapes = new Map();
  for (const position of step.calls) {
    const call = trace.calls[position], known = shapes.get(call.shape);
    if (known) known.count += 1;
    else shapes.set(call.shape, { call, count: 1 });
  }
  const all = [...shapes.values()].sort((a, b) => b.call.bad - a.call.bad);
  const made = all.slice(0, 4).map(({ call, count }) => el("button", { type: "button", class: call.bad ? "bad" : "", on: { click: () => show(call.position) } },
    `${call.caller} > ${call.callee} ${call.operation} ${call.result}${count > 1 ? ` ×${count}` : ""}`));
  return [...made, all.length > 4 ? el("span", { class: "quiet" }, all.length === 5 ? "and 1 more kind of call" : `and ${all.length - 4} more kinds of calls`) : null];
}

function elsewhere(trace) {
  const filter = displayFilters(trace.calls).map(([file, count, text]) => el("div", {}, el("span", {}, `${file}, ${count} frames`), copyButton(text, "copy filter"), el("code", { title: cut(text, 2000) }, cut(text, 300))));
  const logs = trace.logs.map(([service, id]) => el("div", {}, el("span", {}, service), copyButton(id), el("code", {}, id)));
  return el("div", {}, el("h3", {}, "Wireshark: this creation and nothing else"), el("div", { class: "filters-of" }, filter),
    logs.length ? [el("h3", {}, "Ids to grep for in the logs"), el("div", { class: "filters-of" }, logs)] : null);
}

// --- one call ---

function showCall(trace, { call, count }) {
  const step = trace.steps[call.step];
  const end = (role, address) => address && address !== role ? `${role} (${address})` : role;
  const lines = [
    ["result", el("span", { class: call.bad ? "error" : "" }, call.result + (count > 1 ? `, ${count} alike in a row` : ""))],
    call.error && ["error", el("span", { class: "error" }, call.error)],
    ["from", end(call.caller, call.from)], ["to", end(call.callee, call.to) + (call.via ? ` via ${call.via}` : "")],
    ["plane", `${call.plane}, ${call.protocol}`],
    ["step", step ? `${step.step} ${step.title}` : "none of the documented ones"],
    ["since", `${offset(call.started)} s`], ["took", duration(call.took) || "no answer seen"],
    call.request && ["request", [el("code", {}, call.request), copyButton(call.request)]],
    call.message && ["message", [el("code", {}, call.message), copyButton(call.message)]], call.queue && ["queue", el("code", {}, call.queue)],
    ...displayFilters([call]).map(([file, , text]) => [file, [framesOf(call, file), copyButton(text, "copy filter")]]),
    call.ambiguous && ["shared", "may belong to another creation as well"],
    ["call", `number ${call.index} of the run`],
  ].filter(Boolean);
  const close = el("button", { class: "close", type: "button", "aria-label": "close", on: { click: hideCall } }, "×");
  $("call").replaceChildren(close, el("h3", {}, call.operation), el("dl", {}, lines.map(([what, value]) => [el("dt", {}, what), el("dd", {}, value)])));
  $("call").hidden = false;
  chosen = call.position;
  markChosen();
}

// The frame where Wireshark shows the message first, as the evidence has it.
function framesOf(call, file) {
  const frames = call.frames.filter((frame) => shared.files[frame.file] === file).map((frame) => frame.frame);
  return `frame ${frames[0]}${frames.length > 1 ? ` (and ${[...new Set(frames.slice(1))].sort((a, b) => a - b).join(", ")})` : ""}`;
}

function markChosen() {
  for (const drawn of document.querySelectorAll("[data-call]")) drawn.classList.toggle("chosen", Number(drawn.dataset.call) === chosen);
}

function hideCall() {
  $("call").hidden = true;
  chosen = null;
  markChosen();
}
