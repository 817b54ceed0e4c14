"use strict";
// Line numbers beside the text of a definition, marks at its bad lines, and the way to them; a file is read into the text.

{
  const LARGEST_FILE = 1024 * 1024;
  const form = document.getElementById("submission");
  const text = document.getElementById("xml");
  const gutter = form.querySelector(".gutter");
  const numbers = gutter.querySelector("pre");

  function lineHeight() {
    return parseFloat(getComputedStyle(text).lineHeight);
  }

  function number() {
    const lines = text.value.split("\n").length;
    if (numbers.dataset.lines === String(lines)) return;
    numbers.dataset.lines = lines;
    numbers.textContent = Array.from({ length: lines }, (_, index) => index + 1).join("\n");
    gutter.scrollTop = text.scrollTop;
  }

  function mark() {
    gutter.querySelectorAll(".mark").forEach((old) => old.remove());
    for (const problem of document.querySelectorAll("#check [data-line]")) {
      const made = document.createElement("button");
      made.type = "button";
      made.className = "mark";
      made.tabIndex = -1; // the keyboard has the list of problems for that
      made.dataset.line = made.textContent = problem.dataset.line;
      made.title = problem.title;
      made.style.top = `${numbers.offsetTop + parseFloat(getComputedStyle(numbers).paddingTop) + (problem.dataset.line - 1) * lineHeight()}px`;
      gutter.append(made);
    }
    text.setAttribute("aria-invalid", gutter.querySelector(".mark") !== null);
  }

  function jump(line) {
    const start = text.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    const end = text.value.indexOf("\n", start);
    text.focus();
    text.setSelectionRange(start, end < 0 ? text.value.length : end);
    text.scrollTop = (line - 1) * lineHeight() - text.clientHeight / 2;
    text.scrollIntoView({ block: "nearest" });
  }

  async function read(input) {
    const file = input.files[0];
    if (!file || file.size > LARGEST_FILE) return; // the server says so
    const bytes = await file.arrayBuffer();
    const head = new TextDecoder("latin1").decode(bytes.slice(0, 200));
    const named = /encoding\s*=\s*["']([\w-]+)["']/.exec(head);
    try {
      text.value = new TextDecoder(named ? named[1] : "utf-8", { fatal: true }).decode(bytes);
    } catch {
      return; // the server gets the file itself, and says what is wrong
    }
    input.value = "";
    document.getElementById("chosen").textContent = `${file.name} was read`;
    number();
    htmx.trigger(form, "check");
  }

  text.addEventListener("input", number);
  text.addEventListener("scroll", () => { gutter.scrollTop = text.scrollTop; });
  form.elements.file.addEventListener("change", (event) => read(event.target));
  form.addEventListener("submit", (event) => { event.submitter.disabled = true; }); // twice would add the instances twice
  document.addEventListener("click", (event) => {
    const place = event.target.closest("[data-line]");
    if (place) jump(Number(place.dataset.line));
  });
  document.addEventListener("htmx:afterSettle", mark);
  number();
  mark();
}
