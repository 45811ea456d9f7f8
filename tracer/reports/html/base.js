"use strict";
// What the page is built with. What came from the wire only ever becomes a text node or an attribute's
// value here: nothing in this page reads a string as HTML.

const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

function build(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== "") made.append(child);
  return made;
}
const el = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

// A span as the text report says it: 0.4 ms · 16 ms · 3.1 s · 2 m 05 s.
function duration(us) {
  if (us === null || us < 0) return "";
  const ms = us / 1000, s = ms / 1000;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (s < 99.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s), two = (n) => String(n).padStart(2, "0");
  return whole < 3600 ? `${Math.floor(whole / 60)} m ${two(whole % 60)} s` : `${Math.floor(whole / 3600)} h ${two(Math.floor(whole % 3600 / 60))} m`;
}
const offset = (us) => us === null ? "" : (us < 0 ? "" : "+") + (us / 1e6).toFixed(3);
// Words in lines of so many characters at most; what is left over in the last line is cut.
function wrapped(text, most, lines) {
  const found = [""];
  for (const word of text.split(" ")) {
    const last = found[found.length - 1];
    if (!last || last.length + 1 + word.length <= most) found[found.length - 1] = last ? `${last} ${word}` : word;
    else found.push(word);
  }
  const shown = found.slice(0, lines);
  if (found.length > lines) shown[lines - 1] += " …";
  return shown.map((line) => cut(line, most));
}
const cut = (text, most) => text.length <= most ? text : text.slice(0, Math.max(most - 1, 0)) + "…";

let silence;
function say(words) {
  $("said").textContent = words;
  $("said").hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => { $("said").hidden = true; }, 1600);
}

function copyButton(text, words) {
  return el("button", { class: "copy", type: "button", title: "copy", on: { click: (event) => { event.stopPropagation(); copy(text); } } }, words || "copy");
}
function copy(text) {
  // The clipboard's own interface needs a secure context, which a file is not in every browser.
  const taken = navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject(new Error("no clipboard"));
  taken.catch(() => {
    const area = el("textarea", { readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("not copied");
  }).then(() => say("copied"), () => say("this browser does not let a file copy"));
}
