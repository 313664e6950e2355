// The console's own script: signs in with the link behind "#", keeps pages fresh, copies commands. Pages work without it.
"use strict";

function signIn() {
  const form = document.getElementById("enter");
  if (!form || location.hash.length < 20) return;
  form.link.value = location.hash.slice(1); // a link only: another site must not sign somebody in with a key of its own
  history.replaceState(null, "", location.pathname + location.search); // the token stays in no history
  form.submit();
}

// Several pages change while one looks: a stream says that something changed, and the page asks for itself again.
// Focus, selection and the scroll position stay, because only what differs is replaced; folds stay as the reader left them
// (morphIgnore in assets.html).
const live = {source: null, wait: 1000, busy: false, again: false, request: null, release: null, timer: 0};
// One stream for all pages of this browser that are seen: a browser opens six connections to a host, and a stream holds one.
// The page that has the lock holds the stream and tells the others. Without HTTPS or localhost there are no locks: one each.
const channel = navigator.locks && typeof BroadcastChannel !== "undefined" ? new BroadcastChannel("changes") : null;

async function refresh() {
  if (!document.querySelector("[data-live]")) return; // a form, or a page that is paused: another page of this browser heard it
  if (live.busy) { live.again = true; return; }
  live.busy = true;
  try {
    await htmx.ajax("GET", location.pathname + location.search, {target: "#live", select: "#live > *", swap: "innerMorph"});
    draw();
  } finally {
    live.busy = false;
    if (live.again) { live.again = false; refresh(); }
    askAgain();
  }
}

// No file says that a server has switched: while an element has data-again, the page asks for itself again after so many seconds.
function askAgain() {
  clearTimeout(live.timer);
  const box = document.querySelector("[data-live] [data-again]");
  if (box && !document.hidden) live.timer = setTimeout(refresh, 1000 * box.dataset.again);
}

function tell(text, link) {
  const box = document.getElementById("connection");
  if (!box || box.textContent === text) return;
  box.textContent = text;
  if (link) box.innerHTML = `<a href="/enter?next=${encodeURIComponent(location.pathname + location.search)}"></a>`;
  if (link) box.firstChild.textContent = text;
}

function hear(event) {
  if (event === "lost") tell("The console does not answer. This page shows what was last known.");
  else if (event === "signed out") tell("You are signed out. Sign in again.", true);
  else if (event === "refused") tell("This page does not refresh by itself now. Reload it to see what has changed.");
  else tell("");
  if (event === "changed") refresh();
}

function announce(event) {
  hear(event);
  if (channel) channel.postMessage(event);
}

if (channel) channel.onmessage = message => hear(message.data);

function watch(missed) { // missed: this page was not seen for a while, so nobody may have told it what came since
  if (document.hidden || live.request || !document.querySelector("[data-live]")) return;
  const request = live.request = new AbortController(), asked = performance.now();
  if (!channel) { connect(missed); return; }
  navigator.locks.request("changes", {signal: request.signal}, () => new Promise(release => {
    if (request.signal.aborted) { release(); return; }
    live.release = release;
    connect(missed || performance.now() - asked > 1000); // the page that held the stream is gone: what came since was not heard
  })).catch(() => {}); // hidden before it was its turn
}

function unwatch() {
  clearTimeout(live.timer);
  if (live.request) live.request.abort();
  if (live.source) live.source.close();
  if (live.release) live.release();
  live.request = live.source = live.release = null;
}

function connect(missed) {
  const source = live.source = new EventSource("/events");
  source.addEventListener("hello", () => {
    announce(missed ? "changed" : "connected");
    missed = true;
    live.wait = 1000;
  });
  source.addEventListener("changed", () => announce("changed"));
  source.addEventListener("error", async () => {
    source.close();
    const probe = new AbortController(); // EventSource does not say why it failed
    const status = await fetch("/events", {signal: probe.signal}).then(answer => answer.status, () => 0);
    probe.abort();
    if (live.source !== source) return;
    if (status !== 200) announce({0: "lost", 401: "signed out"}[status] || "refused");
    setTimeout(() => { if (live.source === source) connect(true); }, live.wait);
    live.wait = Math.min(30000, live.wait * 2);
  });
}

// Curves over time. A table of the same numbers stands beside each, so nothing is told by the picture alone.
async function draw() {
  for (const box of document.querySelectorAll("[data-curve]:not([data-drawn])")) {
    if (typeof uPlot === "undefined") return;
    box.dataset.drawn = "yes";
    const answer = await fetch(box.dataset.curve);
    if (!answer.ok) continue;
    const {x, series} = await answer.json();
    const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--soft"), line = style.getPropertyValue("--line");
    const strokes = ["--link", "--warn", "--good", "--bad"].map(name => style.getPropertyValue(name));
    const axis = {stroke: ink, grid: {stroke: line}, ticks: {stroke: line}};
    new uPlot({
      width: box.clientWidth, height: 220, scales: {x: {time: false}}, axes: [axis, axis],
      series: [{label: x.label}, ...series.map((one, at) => ({label: one.label, stroke: strokes[at % 4], width: 2}))],
    }, [x.values, ...series.map(one => one.values)], box);
  }
}

// A shortcut of a single character can be turned off (WCAG 2.1.4): who dictates would set it off. This browser remembers it.
const singleKeys = {on: true};
try { singleKeys.on = localStorage.getItem("single-keys") !== "off"; } catch { /* no storage: the switch holds for this page */ }

function switchSingleKeys(on) {
  singleKeys.on = on;
  try { localStorage.setItem("single-keys", on ? "on" : "off"); } catch { /* as above */ }
}

function showKeys() {
  document.getElementById("single-keys").checked = singleKeys.on;
  document.getElementById("keys").showModal();
}

document.addEventListener("visibilitychange", () => document.hidden ? unwatch() : watch(true));
document.addEventListener("keydown", event => {
  const keys = document.getElementById("keys"), typing = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (event.key === "?" && singleKeys.on && keys && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) showKeys();
  if (event.key === "Escape") for (const menu of document.querySelectorAll("details.narrow[open]")) menu.open = false;
});
addEventListener("pagehide", unwatch);
addEventListener("pageshow", event => watch(event.persisted));
signIn();
draw();
askAgain();

// Play: every column asks at once, and its answer grows as it comes, in lines of JSON.
async function ask(form, column) {
  const text = column.querySelector(".play-text"), facts = column.querySelector(".play-facts");
  text.textContent = "";
  facts.textContent = "asking";
  column.querySelector(".play-judge").hidden = true;
  const fields = new URLSearchParams(new FormData(form));
  fields.set("variant", column.dataset.variant);
  const began = performance.now();
  try {
    const answer = await fetch(form.action, {method: "POST", body: fields, headers: {Accept: "application/x-ndjson"}});
    if (!answer.ok) { facts.textContent = (await answer.text()).slice(0, 500); return; }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let first = 0, rest = "";
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      first = first || performance.now() - began;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) hearLine(column, JSON.parse(line), began, first);
    }
  } catch (error) {
    facts.textContent = "The console does not answer.";
  }
}

function hearLine(column, line, began, first) {
  const facts = column.querySelector(".play-facts");
  if (line.text !== undefined) {
    const piece = document.createElement("span");
    piece.textContent = line.text;
    if (line.chance !== null) {
      piece.title = `chance ${Math.round(line.chance * 100)} %`;
      if (line.chance < .5) piece.className = line.chance < .2 ? "chance-1" : "chance-2";
    }
    column.querySelector(".play-text").append(piece);
  } else if (line.error) {
    facts.textContent = line.error;
  } else {
    const seconds = (performance.now() - began) / 1000, after = first / 1000;
    const rate = line.tokens > 1 && seconds > after ? `, ${(line.tokens / (seconds - after)).toFixed(0)} tokens a second` : "";
    facts.textContent = `first word after ${after.toFixed(2)} s, ${seconds.toFixed(1)} s in all${rate}`;
    column.dataset.inference = line.id;
    column.querySelector(".play-judge").hidden = !line.id;
  }
}

function hideNames(hidden) {
  const columns = [...document.querySelectorAll(".play-column")];
  const shuffled = columns.map(column => [Math.random(), column]).sort((one, other) => one[0] - other[0]);
  if (hidden) for (const [, column] of shuffled) column.parentNode.append(column);
  document.querySelectorAll(".play-column").forEach((column, at) => {
    column.querySelector(".play-name").hidden = hidden;
    const letter = column.querySelector(".play-hidden");
    letter.hidden = !hidden;
    letter.textContent = `Answer ${String.fromCharCode(65 + at)}`;
  });
}

async function judge(button) {
  const column = button.closest(".play-column"), form = document.getElementById("play");
  const fields = new URLSearchParams({server: form.server.value, inference: column.dataset.inference, value: button.value});
  const answer = await fetch("/play/feedback", {method: "POST", body: fields}).catch(() => null);
  const words = answer && answer.ok ? `judged ${button.value === "up" ? "good" : "bad"}` : answer ? (await answer.text()).slice(0, 300) : "The console does not answer.";
  column.querySelector(".play-facts").textContent += `; ${words}`;
  column.querySelector(".play-judge").hidden = Boolean(answer && answer.ok);
  hideNames(false);
}

document.addEventListener("click", event => {
  if (event.target.matches(".play-judge button")) judge(event.target);
  if (event.target.matches("#open-keys")) showKeys();
});

document.addEventListener("change", event => {
  if (event.target.matches("#single-keys")) switchSingleKeys(event.target.checked);
});

addEventListener("storage", event => { // another page of this browser switched it
  if (event.key === "single-keys") singleKeys.on = event.newValue !== "off";
});

document.addEventListener("submit", event => {
  if (event.target.id !== "play") return;
  event.preventDefault();
  hideNames(document.getElementById("blind").checked);
  for (const column of document.querySelectorAll(".play-column")) ask(event.target, column);
});
