// The waterfall: a bar for each step and, below it, one for each of its calls, all on one time axis.

function drawWaterfall(trace, { every, pick }) {
  const rows = rowsOf(trace, every);
  const last = Math.max(1, ...rows.map((row) => row.end), ...trace.steps.map((step) => (step.since || 0) + (step.took || 0)));
  const made = el("div", { class: "waterfall" }, scale(last));
  let shown = null;
  rows.forEach((row, at) => {
    const step = trace.steps[row.call.step];
    if (step && step !== shown) {
      shown = step;
      // As long as its calls here: a step that is tried on a second host comes twice.
      const own = rows.slice(at, rows.findIndex((other, n) => n > at && other.call.step >= 0 && other.call.step !== row.call.step) >>> 0).filter((other) => other.call.step === row.call.step);
      const since = own.length === 1 ? null : row.call.started;
      made.append(barRow("div", `of-step${own.some((other) => other.call.bad) ? " bad" : ""}`, [el("b", {}, step.step), step.title], since, Math.max(...own.map((other) => other.end)) - since, last));
    }
    const { call } = row;
    const ink = `ink-${trace.planes.indexOf(call.plane) % 5}${call.bad ? " bad" : ""}${call.step < 0 ? " aside" : ""}`;
    const words = `${call.caller} > ${call.callee} ${call.operation}${row.count > 1 ? ` ×${row.count}` : ""}`;
    const bar = barRow("button", ink, [words], call.started, row.end - call.started, last);
    bar.dataset.call = call.position;
    bar.title = words;
    bar.addEventListener("click", () => pick(row));
    made.append(bar);
  });
  return made;
}

function barRow(tag, kind, what, since, took, last) {
  const bar = el("span", { class: "bar" }), words = el("span", { class: "took" }, took > 0 ? duration(took) : "");
  bar.style.left = `${100 * Math.max(since || 0, 0) / last}%`;
  bar.style.width = `${100 * took / last}%`;
  words.style.left = `${100 * Math.min(Math.max(since || 0, 0) + took, last) / last}%`;
  const track = el("span", { class: "track" }, since === null ? null : [bar, words]);
  return el(tag, { class: `bar-row ${kind}` }, el("span", { class: "what" }, what), track);
}

function scale(last) {
  const ends = el("span", { class: "ends" });
  const rough = last / 5, decade = 10 ** Math.floor(Math.log10(rough));
  const between = [1, 2, 5, 10].map((n) => n * decade).find((n) => n >= rough);
  for (let at = 0; at <= last; at += between) {
    const tick = el("span", {}, at ? duration(at).replace(".0 ", " ") : "0");
    tick.style.left = `${100 * at / last}%`;
    ends.append(tick);
  }
  return el("div", { class: "scale" }, el("span"), ends);
}
