"use strict";

// Sort and filter the table of runs.
const section = document.querySelector(".runs");
const body = section.querySelector("tbody");
const heads = [...section.querySelectorAll("th")];
const compare = new Intl.Collator("en", { numeric: true }).compare;

function sort(column, ascending) {
  const text = (row) => row.cells[column].textContent;
  const missing = (row) => row.cells[column].classList.contains("missing");
  const rows = [...body.rows].sort(
    (a, b) => missing(a) - missing(b) || (ascending ? 1 : -1) * compare(text(a), text(b)),
  );
  body.append(...rows);
  heads.forEach((head, i) => {
    head.ariaSort = i !== column ? "none" : ascending ? "ascending" : "descending";
  });
}

heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sort(column, head.ariaSort !== "ascending"));
});

function filter() {
  const words = section.querySelector("input").value.toLowerCase().split(/\s+/);
  for (const row of body.rows) {
    const cells = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => cells.includes(word));
  }
  const shown = [...body.rows].filter((row) => !row.hidden).length;
  section.querySelector("output").textContent = `${shown} of ${body.rows.length} runs`;
}

section.querySelector("input").addEventListener("input", filter);
filter();
