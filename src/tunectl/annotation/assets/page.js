// Keys, drafts, and a clear word when the server is away. Everything else is htmx.
"use strict";
const typing = (element) => element.matches("textarea, input:not([type=checkbox])");
// A button does nothing before htmx has taken up its form, a moment after the page is there.
const press = (target) =>
  target.matches("button") && !target.closest("[data-htmx-powered]") ? setTimeout(press, 20, target) : target.click();
const draftName = () => "draft " + document.querySelector("[data-showing]")?.dataset.showing;

// Shortcuts of a single character can be turned off (WCAG 2.1.4): who dictates would set them off. This browser remembers it.
let singleKeys = true;
try { singleKeys = localStorage.getItem("single-keys") !== "off"; } catch { /* no storage: the switch holds for this page */ }

function switchSingleKeys(on) {
  singleKeys = on;
  try { localStorage.setItem("single-keys", on ? "on" : "off"); } catch { /* as above */ }
}

document.addEventListener("change", (event) => { if (event.target.id === "single-keys") switchSingleKeys(event.target.checked); });
document.addEventListener("DOMContentLoaded", () => {
  const box = document.querySelector("#single-keys");
  if (box) box.checked = singleKeys;
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.activeElement.blur();
  if (typing(event.target) || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key.length === 1 && !singleKeys) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key; // caps lock changes nothing
  const target = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!target) return;
  event.preventDefault();
  press(target);
  if (key === "e") setTimeout(() => document.querySelector("#edit[open] textarea")?.focus());
});

document.addEventListener("click", (event) => {
  const side = event.target.closest("[data-copy]")?.dataset.copy;
  if (!side) return;
  const text = document.querySelector("#edit textarea");
  text.value = document.querySelector(`#${side} p`).textContent;
  text.focus();
  keep();
});

function keep() {
  const form = document.querySelector("#question form");
  if (!form) return;
  const fields = new FormData(form);
  sessionStorage.setItem(draftName(), JSON.stringify({ tags: fields.getAll("tag"), edit: fields.get("edit") }));
}

function restore() {
  const asked = document.querySelector(".asked"); // of a long conversation the last turn is what is answered
  if (asked) asked.scrollTop = asked.lastElementChild.offsetTop - asked.firstElementChild.offsetTop;
  const kept = sessionStorage.getItem(draftName());
  if (!kept) return;
  const draft = JSON.parse(kept);
  for (const box of document.querySelectorAll("input[name=tag]")) box.checked = draft.tags.includes(box.value);
  if (!draft.edit) return;
  document.querySelector("#edit textarea").value = draft.edit;
  document.querySelector("#edit").open = true;
}

// A form that htmx has not taken up yet must not reload the page (settling at once, set in the frame, keeps that moment short).
document.addEventListener("submit", (event) => { if (event.target.closest("#question")) event.preventDefault(); });
document.addEventListener("input", keep);
document.addEventListener("DOMContentLoaded", restore);
document.addEventListener("htmx:after:swap", () => { sessionStorage.length > 50 && sessionStorage.clear(); restore(); scrollTo(0, 0); });
for (const trouble of ["htmx:error", "htmx:response:error"])
  document.addEventListener(trouble, () => { document.querySelector("#lost").hidden = false; });
document.addEventListener("htmx:after:request", (event) => {
  if (event.detail.ctx.response.raw.ok) document.querySelector("#lost").hidden = true;
});
