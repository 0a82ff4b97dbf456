"use strict";

// Everything here is an addition: without it the table of runs stands there whole.
(() => {
  const section = document.querySelector(".runs");
  const table = section.querySelector("table");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  // Sorting: by the stored values, not by what is shown; what is not defined always comes last.
  const byText = new Intl.Collator("en", { numeric: true }).compare;
  const byNumber = (a, b) => Number(a) - Number(b);

  function sort(column, direction) {
    const compare = "numeric" in heads[column].dataset ? byNumber : byText;
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => ({ row, order: row.cells[column].dataset.order }));
    rows.sort((a, b) => {
      if (a.order === undefined || b.order === undefined) {
        return (a.order === undefined) - (b.order === undefined);
      }
      return sign * compare(a.order, b.order);
    });
    body.append(...rows.map(({ row }) => row));
    heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? direction : "none"));
  }

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => {
      sort(column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    });
  });

  // Heads that stay in sight ask for a table that need not be scrolled sideways.
  const scroll = table.parentElement;
  new ResizeObserver(() => {
    scroll.classList.toggle("fits", table.offsetWidth <= scroll.clientWidth);
  }).observe(scroll);

  // Filter: every word of the search has to occur.
  const form = section.querySelector(".filter");
  const shown = section.querySelector(".shown");

  function filter() {
    const words = form.elements.text.value.toLowerCase().split(/\s+/);
    const experiment = form.elements.experiment.value;
    let count = 0;
    for (const row of body.rows) {
      const fits =
        (experiment === "all" || row.dataset.experiment === experiment) &&
        words.every((word) => row.dataset.search.includes(word));
      row.hidden = !fits;
      count += fits;
    }
    const line = `${count} of ${body.rows.length} runs`;
    if (shown.textContent !== line) shown.textContent = line;
  }

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();

  // Copying: browsers may lack the clipboard or refuse it, above all for a page opened as a file.
  const copied = section.querySelector(".copied");

  function copyBySelection(text) {
    const area = document.createElement("textarea");
    area.value = text;
    area.readOnly = true;
    area.className = "hear-only";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyBySelection(text);
    }
  }

  for (const button of body.querySelectorAll(".copy")) {
    let timer;
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copy(button.dataset.copy);
      button.focus({ preventScroll: true });
      button.textContent = done ? "Copied" : "Failed";
      copied.textContent = done
        ? `Copied the checkpoint path of run ${button.dataset.run}`
        : "The browser did not allow copying";
      clearTimeout(timer);
      timer = setTimeout(() => {
        button.textContent = "Copy";
        copied.textContent = "";
      }, 2000);
    });
  }
})();
