// The list of creations: what is shown of it, and in which order.

const rows = [...document.querySelectorAll("#traces tbody tr")];
const filters = $("filters");
let members = null;

for (const row of rows) {
  row.find = `${row.dataset.find} ${row.textContent}`.toLowerCase();
  row.key = {
    name: row.querySelector(".name").textContent.trim().toLowerCase(), outcome: row.dataset.outcome, stop: row.dataset.stop,
    host: row.querySelector(".host").textContent, id: row.querySelector(".id").textContent,
    started: Number(row.dataset.started), took: Number(row.dataset.took),
  };
}

function shownRows() {
  return rows.filter((row) => !row.hidden);
}

function filterRows() {
  const wanted = Object.fromEntries(new FormData(filters));
  const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const data = row.dataset;
    const fits = (!members || members.has(data.n)) && (!wanted.verdict || data.verdict === wanted.verdict) &&
      (!wanted.outcome || data.outcome === wanted.outcome) && (!wanted.stop || data.stop === wanted.stop) &&
      (!wanted.host || data.hosts.split("\n").includes(wanted.host)) && words.every((word) => row.find.includes(word));
    row.hidden = !fits;
    count += fits;
  }
  $("shown").textContent = count === rows.length ? String(count) : `${count} of ${rows.length}`;
  $("none").hidden = count > 0;
  $("reset").hidden = count === rows.length;
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.setAttribute("aria-pressed", wanted[button.dataset.filter] === button.dataset.value);
  }
  for (const button of document.querySelectorAll("[data-members]")) {
    button.setAttribute("aria-pressed", members !== null && members.of === button);
  }
}

// Without an order, as reported; a second press turns the order round.
function sortRows(heading, by) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const natural = new Intl.Collator("en", { numeric: true });
  const compare = by === "started" || by === "took" ? (a, b) => a.key[by] - b.key[by] : (a, b) => natural.compare(a.key[by], b.key[by]);
  rows.sort((a, b) => (down ? compare(b, a) : compare(a, b)) || a.dataset.n - b.dataset.n);
  rows[0].parentNode.replaceChildren(...rows);
}

function setUpList() {
  if (!filters) return;
  filters.addEventListener("input", filterRows);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => { members = null; setTimeout(filterRows); });
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => sortRows(button.closest("th"), button.dataset.sort));
  }
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => {
      const field = filters.elements[button.dataset.filter];
      field.value = field.value === button.dataset.value ? "" : button.dataset.value;
      filterRows();
    });
  }
  for (const button of document.querySelectorAll("[data-members]")) {
    button.addEventListener("click", () => {
      members = members && members.of === button ? null : Object.assign(new Set(button.dataset.members.split(" ")), { of: button });
      filterRows();
      if (members) $("list").scrollIntoView({ behavior: "smooth" });
    });
  }
  $("traces").tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a") && !String(getSelection())) location.hash = `trace-${row.dataset.n}`;
  });
  filterRows();
}
