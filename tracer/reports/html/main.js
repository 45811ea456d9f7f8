// Which part of the page is shown: the overview, or the trace that the address names.

let place = 0;

async function route() {
  const found = /^#trace-(\d+)$/.exec(location.hash);
  const count = shared.traces, alone = count === 1;
  hideCall();
  if (!alone && !(found && Number(found[1]) < count)) {
    $("trace").hidden = true;
    $("overview").hidden = $("captures").hidden = false;
    scrollTo(0, place);
    return;
  }
  if (!$("overview").hidden) place = scrollY;
  const number = alone ? 0 : Number(found[1]);
  try {
    showTrace(await details(number), number, alone);
    $("overview").hidden = true;
    $("captures").hidden = !alone;
    scrollTo(0, 0);
  } catch (error) {
    say(error.message);
    throw error;
  }
  $("trace").redraw();
}

setUpList();
addEventListener("hashchange", route);
addEventListener("keydown", (event) => { if (event.key === "Escape") hideCall(); });
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => { if (!$("trace").hidden) $("trace").redraw(); }, 150);
});
route();
