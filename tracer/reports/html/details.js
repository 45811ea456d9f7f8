// Unpacks one trace when it is opened: what compact.py packed.

const shared = JSON.parse($("shared").textContent);
let packed;

async function details(number) {
  packed = packed || $("packed").textContent.split("\n");
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old to unpack a creation: Firefox 113, Chrome 80, Safari 16.4 or later can");
  const bytes = Uint8Array.from(atob(packed[number]), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return unpacked(JSON.parse(await new Response(stream).text()));
}

function unpacked(trace) {
  let index = 0, started = 0;
  trace.calls = trace.calls.map(([ahead, shape, later, took, step, frames, ambiguous, ...texts], position) => {
    index += ahead;
    started += later;
    const [plane, protocol, caller, callee, operation, result, bad, arrived] = shared.shapes[shape];
    const [request, from, to, via, error, message, queue] = texts.map((number) => trace.strings[number]);
    return { position, index, shape, plane, protocol, caller, callee, operation, result, bad: !!bad, arrived: !!arrived,
      started, took: took < 0 ? null : took, step, frames: evidence(frames), ambiguous: !!ambiguous, request, from, to, via, error, message, queue };
  });
  trace.steps = trace.steps.map(([step, title, status, since, took, calls, reason, usual, slow]) => ({ step, title, status, since, took, calls, reason, usual, slow }));
  trace.deviations = trace.deviations.map(([kind, step, message, call, expected]) => ({ kind, step, message, call, expected }));
  trace.marks = trace.marks.map(([before, kind, step, words, ends]) => ({ before, kind, step, words, ends }));
  trace.planes = [...new Set(trace.calls.map((call) => call.plane))].sort();
  return trace;
}

function evidence(flat) {
  const found = [];
  for (let at = 0, file = -1, frame = 0; at < flat.length; at += 2) {
    frame = flat[at] === file ? frame + flat[at + 1] : flat[at + 1];
    file = flat[at];
    found.push({ file, frame });
  }
  return found;
}

// Calls to draw: of the documented steps, or every one. Alike ones that follow each other are one row, unless another
// host is asked between them.
function rowsOf(trace, every) {
  const found = [];
  const all = every || !trace.calls.some((call) => call.step >= 0);
  const attempts = trace.marks.filter((mark) => mark.kind === "attempt").map((mark) => mark.before);
  const attemptOf = (call) => attempts.filter((before) => before <= call.position).length;
  for (const call of trace.calls) {
    if (!all && call.step < 0) continue;
    const last = found[found.length - 1];
    const end = call.started + (call.took || 0);
    if (last && last.call.shape === call.shape && last.call.step === call.step && attemptOf(last.call) === attemptOf(call)) {
      last.count += 1;
      last.end = Math.max(last.end, end);
    } else found.push({ call, count: 1, end });
  }
  return found;
}

// The frames of calls as Wireshark's display filter, for each capture: [file, how many, filter].
function displayFilters(calls) {
  const files = new Map();
  for (const call of calls) for (const { file, frame } of call.frames) {
    if (!files.has(file)) files.set(file, new Set());
    files.get(file).add(frame);
  }
  return [...files].sort((a, b) => a[0] - b[0]).map(([file, frames]) => {
    const sorted = [...frames].sort((a, b) => a - b), runs = [];
    for (const frame of sorted) {
      const run = runs[runs.length - 1];
      if (run && frame === run[1] + 1) run[1] = frame;
      else runs.push([frame, frame]);
    }
    const inside = runs.map(([low, high]) => low === high ? `${low}` : `${low}..${high}`).join(", ");
    return [shared.files[file] || "?", sorted.length, `frame.number in {${inside}}`];
  });
}
