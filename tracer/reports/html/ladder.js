// The ladder: a column for each role in flow order, a row for each call, time runs downwards.

const ROW = 31, CHARACTER = 6.65;

function drawLadder(trace, { every, proportional, width, pick }) {
  const rows = rowsOf(trace, every);
  const narrow = width < 700;
  const gutter = narrow ? 76 : 158;
  const head = narrow ? 124 : 38;
  const marks = trace.marks.slice();
  const roles = rolesOf(rows, marks);
  const column = Math.min(230, Math.max(narrow ? 22 : 94, Math.floor((width - gutter - 3) / roles.length)));
  const across = Math.max(column * roles.length, width - gutter - 3);
  const sheet = {
    trace, pick, across, narrow, seen: width - gutter, proportional, gutter,
    x: new Map(roles.map((role, number) => [role, Math.round(column * (number + 0.5))])),
    left: svg("g"), right: svg("g"), bars: svg("g"),
    y: 8, bottom: 4, step: "", before: null, time: timeScale(rows, proportional),
  };
  for (const row of rows) {
    while (marks.length && marks[0].before <= row.call.position) drawMark(sheet, marks.shift());
    drawRow(sheet, row);
  }
  for (const mark of marks) drawMark(sheet, mark);
  const height = sheet.y + 16;
  const size = (wide, high, name, ...inside) => svg("svg", { class: name, width: wide, height: high, viewBox: `0 0 ${wide} ${high}` }, ...inside);
  const lives = [...sheet.x.values()].map((x) => svg("path", { class: "life", d: `M${x} 0V${height}` }));
  const names = [...sheet.x].map(([role, x]) => narrow ? uprightName(role, x, head) : columnName(role, x, Math.floor((column - 8) / 7)));
  const made = el("div", { class: "ladder" }, size(gutter, head, "corner"), size(across, head, "head", names),
    size(gutter, height, "gutter", sheet.left), size(across, height, "body", lives, sheet.bars, sheet.right));
  // A page that is wide enough scrolls as a whole, with the roles at its top.
  if (gutter + across <= width) made.classList.add("fits");
  made.style.gridTemplateColumns = `${gutter}px ${across}px`;
  return made;
}

// In two lines where one is too narrow: nova- above conductor.
function columnName(role, x, most) {
  const dash = role.length > most ? role.indexOf("-") + 1 : 0;
  const lines = dash ? [role.slice(0, dash), role.slice(dash)] : [role];
  return svg("text", { y: dash ? 16 : 24 }, lines.map((line, n) => svg("tspan", { x, dy: n * 14 }, cut(line, most + 1))), svg("title", {}, role));
}

// Upwards, where a hand holds the page and all columns shall be seen at once.
function uprightName(role, x, head) {
  return svg("text", { class: "upright", transform: `translate(${x + 4} ${head - 6}) rotate(-90)` }, cut(role, 15), svg("title", {}, role));
}

function rolesOf(rows, marks) {
  const used = new Set();
  for (const { call } of rows) used.add(call.caller).add(call.callee);
  for (const mark of marks) for (const end of mark.ends) used.add(end);
  return [...shared.roles.filter((role) => used.has(role)), ...[...used].filter((role) => !shared.roles.includes(role))];
}

// Proportional: as high as the rows would be, but never so high that nobody scrolls there.
function timeScale(rows, proportional) {
  if (!proportional || !rows.length) return null;
  const first = rows[0].call.started;
  const last = Math.max(first + 1, ...rows.map((row) => row.end));
  const high = Math.min(2600, Math.max(640, rows.length * ROW));
  return (us) => 22 + (Math.min(us, last) - first) / (last - first) * high;
}

function drawRow(sheet, row) {
  const { call } = row;
  const { x, time } = sheet;
  const from = x.get(call.caller), to = x.get(call.callee);
  const y = time ? time(call.started) : sheet.y + ROW - 8;
  const crowded = time && y - sheet.y < 14 && sheet.before !== null && !call.bad;
  if (!crowded) drawGutter(sheet, call, y);
  const ink = `ink-${sheet.trace.planes.indexOf(call.plane) % 5}`;
  const state = `${call.bad ? " bad" : ""}${call.step < 0 ? " aside" : ""}`;
  const label = crowded ? null : labelOf(sheet, row, Math.min(from, to), Math.max(from, to), y);
  const words = `${call.step < 0 ? "" : `step ${sheet.trace.steps[call.step].step}: `}${call.caller} > ${call.callee} ${call.operation} ${call.result}${row.count > 1 ? ` ×${row.count}` : ""}`;
  const drawn = svg("g", { class: `arrow-row ${ink}${state}`, tabindex: 0, role: "button", "aria-label": words, "data-call": call.position,
    on: { click: () => sheet.pick(row), keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sheet.pick(row); } } } },
    svg("rect", { class: "hit", x: 0.5, y: y - (time ? 4 : ROW - 9), width: sheet.across - 1, height: time ? 8 : ROW - 1, rx: 3 }),
    time && row.end > call.started ? svg("rect", { class: "busy", x: to - 4, y, width: 8, height: Math.max(2, time(row.end) - y), rx: 2 }) : null,
    label, ...arrow(from, to, y, call.arrived));
  sheet.right.append(drawn);
  if (!crowded) sheet.y = time ? y + 2 : sheet.y + ROW;
  sheet.bottom = y + 6;
  sheet.before = call.started;
}

function arrow(from, to, y, arrived) {
  if (from === to) {
    return [svg("path", { class: "shaft", d: `M${from} ${y - 8}h18v8h-14` }), svg("path", { class: "tip", d: `M${from + 1} ${y}l6 -3.500v7z` })];
  }
  const way = to > from ? 1 : -1;
  const end = arrived ? to - way : to - way * 9;
  const tip = arrived ? `M${end} ${y}l${-way * 7} -3.500v7z` : `M${end - 4} ${y - 4}l8 8m0 -8l-8 8`;
  return [svg("circle", { class: "dot", cx: from, cy: y, r: 2.6 }),
    svg("path", { class: "shaft", d: `M${from} ${y}H${arrived ? end - way * 5 : end}` }), svg("path", { class: "tip", d: tip })];
}

// Over the arrow where it fits; else beginning or ending at the arrow's end, over the lifelines of others.
function labelOf(sheet, { call, count }, low, high, y) {
  const end = ` ${call.result}${count > 1 ? ` ×${count}` : ""}`;
  const took = call.took !== null && call.took >= 1e5 && count === 1 ? ` ${duration(call.took)}` : "";
  const most = Math.floor((sheet.across - 12) / CHARACTER);
  const operation = cut(call.operation, most - end.length - took.length);
  const size = (operation.length + end.length + took.length) * CHARACTER;
  const right = sheet.across - low - 8, left = high - 4;
  const place = size <= high - low - 12 ? [(low + high) / 2, "middle"]
    : size <= right ? [low + 6, "start"] : size <= left ? [high - 6, "end"] : [6, "start"];
  return svg("text", { x: place[0], y: y - 6, "text-anchor": place[1] }, svg("tspan", {}, operation), svg("tspan", { class: "result" }, end + took));
}

function drawGutter(sheet, call, y) {
  const step = call.step < 0 ? "" : sheet.trace.steps[call.step].step;
  const texts = [];
  if (step && step !== sheet.step) texts.push(svg("text", { x: sheet.narrow ? 6 : 10, y: y + 1, class: `step${call.bad ? " bad" : ""}` }, step));
  sheet.step = step || sheet.step;
  texts.push(svg("text", { x: sheet.narrow ? 71 : 94, y: y + 1, "text-anchor": "end" }, offset(call.started)));
  if (!sheet.narrow && sheet.before !== null) {
    const pause = call.started - sheet.before;
    const words = pause >= 1000 ? duration(pause) : "";
    texts.push(svg("text", { x: sheet.gutter - 8, y: y + 1, "text-anchor": "end", class: pause >= 1e6 ? "late" : "" }, words && `+${words.replace(" ", "\u2009")}`));
  }
  sheet.left.append(...texts);
}

// A band over all columns: something that is no call. A call that should have come is dashed between its ends.
function drawMark(sheet, mark) {
  const { x, across } = sheet;
  const ends = mark.ends.length === 2 && mark.ends[0] !== mark.ends[1] ? mark.ends.map((end) => x.get(end)) : null;
  const sign = { deviation: "✗ ", missing: "✗ ", unobserved: "? ", attempt: "↻ ", rest: "… " }[mark.kind];
  const lines = wrapped(sign + mark.words, Math.floor((Math.min(across, sheet.seen) - 20) / 6.5), 5);
  const high = 10 + 16 * lines.length + (ends ? 20 : 0);
  const top = Math.max(sheet.y + 3, sheet.bottom);
  const words = svg("text", { y: top + 17 }, lines.map((line, n) => svg("tspan", { x: 10, dy: n ? 16 : 0 }, line)), svg("title", {}, mark.words));
  const made = [svg("rect", { x: 0, y: top, width: across, height: high }), words];
  if (ends) {
    const way = ends[1] > ends[0] ? 1 : -1, y = top + high - 12;
    made.push(svg("path", { d: `M${ends[0]} ${y}H${ends[1] - way * 2}m${-way * 8} -4l${way * 8} 4l${-way * 8} 4` }));
  } else if (mark.kind === "missing") made.push(svg("path", { d: `M0 ${top + high}H${across}` }));
  sheet.right.append(svg("g", { class: `mark-row ${mark.kind}` }, made));
  // Behind a mark the step is named again: that of the next attempt may be the same.
  sheet.step = "";
  if (mark.step) sheet.left.append(svg("text", { x: sheet.narrow ? 6 : 10, y: top + 17, class: mark.kind === "unobserved" || mark.kind === "rest" ? "step" : "step bad" }, mark.step));
  sheet.y = top + high + (sheet.time ? 0 : 1);
}
