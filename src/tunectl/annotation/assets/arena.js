// The arena's own: Enter sends, what is typed survives a reload, and the newest turn is in sight.
"use strict";
const box = () => document.querySelector("#ask textarea");

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target !== box()) return;
  event.preventDefault();
  document.querySelector("#ask .send").click();
});
document.addEventListener("input", () => { if (box()) sessionStorage.setItem("ask", box().value); });

function show() {
  const turns = document.querySelector(".asked");
  if (turns) turns.scrollTop = turns.scrollHeight;
  if (!box()) return sessionStorage.removeItem("ask");  // it was answered
  if (!box().value) box().value = sessionStorage.getItem("ask") ?? "";
  box().focus();
}
document.addEventListener("DOMContentLoaded", show);
document.addEventListener("htmx:after:swap", show);
