"use strict";
// What the pages need of a browser beside htmx: times of the viewer's zone, refreshing while they are looked at, dialogs.

const REFRESH_SECONDS = 5;

function two(number) {
  return String(number).padStart(2, "0");
}

function localise(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const moment = new Date(element.getAttribute("datetime"));
    if (Number.isNaN(moment.getTime())) continue;
    const day = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
    element.textContent = `${day} ${two(moment.getHours())}:${two(moment.getMinutes())}`;
    element.dataset.local = "";
  }
}

function refresh() {
  const live = document.getElementById("live");
  const reading = window.getSelection().toString() !== "" || document.querySelector("dialog[open], #live input:checked");
  if (live && !document.hidden && !reading) htmx.trigger(live, "live");
}

// A new text must not be taken for one that is shown in the viewer's zone already.
document.addEventListener("htmx:beforeSwap", (event) => {
  for (const element of event.target.querySelectorAll("time[data-local]")) delete element.dataset.local;
});
document.addEventListener("htmx:afterSettle", () => localise(document));
document.addEventListener("visibilitychange", refresh);

// An address holds what was chosen, and not what was left empty.
document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.verb !== "get") return;
  for (const [name, value] of [...event.detail.formData.entries()]) {
    if (value === "") event.detail.formData.delete(name);
  }
});

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  const closer = event.target.closest("[data-closes]");
  if (closer) closer.closest("dialog").close();
});

// One mark for all rows of a page.
document.addEventListener("change", (event) => {
  const name = event.target.dataset.marks;
  if (!name) return;
  for (const box of document.querySelectorAll(`input[type=checkbox][name="${name}"]`)) box.checked = event.target.checked;
});

// A dangerous button works once the name is typed.
function guard(input) {
  const button = input.form.querySelector("button:not([type=button])");
  button.disabled = input.value !== input.dataset.mustBe;
}
document.addEventListener("input", (event) => {
  if (event.target.matches("[data-must-be]")) guard(event.target);
});

document.addEventListener("DOMContentLoaded", () => {
  localise(document);
  document.querySelectorAll("[data-must-be]").forEach(guard);
  setInterval(refresh, REFRESH_SECONDS * 1000);
});
