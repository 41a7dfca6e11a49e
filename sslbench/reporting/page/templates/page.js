// What the page offers beyond reading: sorting, filtering, other views of classes, and the cases behind a row.
"use strict";
const stored = document.getElementById("values");
const behind = stored && JSON.parse(stored.textContent);
const make = (tag, set = {}, ...inside) => {
  const made = Object.assign(document.createElement(tag), set);
  made.append(...inside);
  return made;
};
const number = text => parseFloat(text.replace("−", "-"));

function cases(key) {
  const box = make("div", { className: "cases", tabIndex: 0 });
  for (const { block, metric, axes, seeds, low, step, width, values } of behind.rows[key]) {
    const { cases, classes } = behind.axes[axes];
    const value = place => {
      const code = parseInt(values.substr(place * width, width), 36);
      return code === 36 ** width - 1 ? NaN : low + step * code;
    };
    const shown = found => Number.isNaN(found) ? "–" : found.toFixed(width - 1);
    const table = make("table", { className: "numbers" },
      make("caption", {}, make("span", { textContent: [block, `${metric}, every case of every seed`].filter(Boolean).join(": ") })),
      make("thead", {}, make("tr", {}, ...["Case", "Seed", "Mean", ...classes].map(text => make("th", { scope: "col", textContent: text })))));
    const body = table.createTBody();
    cases.forEach((name, i) => seeds.forEach((seed, s) => {
      const own = classes.map((_, c) => value((s * cases.length + i) * classes.length + c));
      const known = own.filter(found => !Number.isNaN(found));
      const mean = known.reduce((sum, found) => sum + found, 0) / known.length;
      body.append(make("tr", {}, make("th", { scope: "row", textContent: name }),
        ...[String(seed), shown(mean), ...own.map(shown)].map(text => make("td", { textContent: text }))));
    }));
    box.append(table);
  }
  return box;
}

for (const box of document.querySelectorAll(".tablebox[id]")) {
  const table = box.querySelector("table"), bodies = [...table.tBodies], heads = [...table.querySelectorAll("thead th")];
  const rows = bodies.flatMap(body => [...body.rows].filter(row => !row.classList.contains("group")).map(row => ({
    row, body, cells: [...row.cells], words: `${row.cells[0].textContent} ${body.rows[0].textContent}`.toLowerCase(),
  })));
  const columns = heads.filter(head => head.scope === "col");
  columns.forEach((head, place) => head.dataset.column ??= place);
  const put = (body, found) => { body.append(found.row); if (found.detail) body.append(found.detail); };

  // Sorting: the better end first, then the other, then the order of the file.
  for (const head of columns) {
    const at = +head.dataset.column, button = make("button", { type: "button" }, ...head.childNodes);
    const first = "falls" in head.dataset || !at ? "ascending" : "descending";
    head.append(button);
    button.onclick = () => {
      const was = head.getAttribute("aria-sort");
      const now = !was ? first : was !== first ? null : first === "ascending" ? "descending" : "ascending";
      for (const other of columns) other.removeAttribute("aria-sort");
      table.classList.toggle("sorted", Boolean(now));
      if (!now) return rows.forEach(found => put(found.body, found));
      head.setAttribute("aria-sort", now);
      const text = found => found.cells[at].textContent, sign = now === "ascending" ? 1 : -1;
      const order = (a, b) => {
        const [x, y] = [number(text(a)), number(text(b))];
        if (!at || (Number.isNaN(x) && Number.isNaN(y))) return at ? 0 : sign * text(a).localeCompare(text(b));
        return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : sign * (x - y);
      };
      [...rows].sort(order).forEach(found => put(bodies[0], found));
    };
  }

  // The cases behind a row.
  for (const found of rows.filter(found => behind?.rows[found.row.id])) {
    const button = make("button", { type: "button", className: "open" }, ...found.cells[0].childNodes);
    button.setAttribute("aria-expanded", false);
    found.cells[0].append(button);
    button.onclick = () => {
      const open = !found.detail;
      button.setAttribute("aria-expanded", open);
      if (open) found.row.after(found.detail = make("tr", { className: "detail" },
        make("td", { colSpan: found.cells.length }, cases(found.row.id))));
      else { found.detail.remove(); delete found.detail; }
    };
  }
  if (box.id.includes("-")) continue;

  // Filter and views.
  const count = make("output", {}), filter = make("input", { type: "search", placeholder: "all rows" });
  filter.oninput = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/);
    for (const { row, words } of rows) row.hidden = !wanted.every(word => words.includes(word));
    for (const body of bodies) body.classList.toggle("empty", [...body.rows].every(row => row.hidden || row.classList.contains("group")));
    count.textContent = filter.value ? `${rows.filter(({ row }) => !row.hidden).length} of ${rows.length} rows` : "";
  };
  const tools = make("div", { className: "tools" }, make("label", {}, "Filter ", filter));
  const offer = (text, change) => {
    const check = make("input", { type: "checkbox" });
    check.onchange = () => change(check.checked);
    tools.append(make("label", {}, check, ` ${text}`));
  };
  const sized = columns.filter(head => head.dataset.size);
  const places = sized.map(head => +head.dataset.column);
  const reorder = bySize => {
    const groups = new Map();
    for (const head of sized) {
      const key = head.dataset.group;
      groups.set(key, [...groups.get(key) ?? [], head]);
    }
    const order = rows[0].cells.map((_, place) => place), heads = new Map(columns.map(head => [+head.dataset.column, head]));
    for (const group of groups.values()) {
      const sorted = bySize ? [...group].sort((a, b) => b.dataset.size - a.dataset.size) : group;
      group.forEach((head, n) => order[+head.dataset.column] = +sorted[n].dataset.column);
    }
    for (const { row, cells } of rows) row.append(...order.map(place => cells[place]));
    const line = sized[0].parentNode;
    line.append(...order.map(place => heads.get(place)).filter(head => head?.parentNode === line));
  };
  if ("sized" in box.dataset) offer("classes by size", reorder);
  const shade = on => {
    table.classList.toggle("shaded", on);
    for (const head of sized) {
      const at = +head.dataset.column, better = found => "falls" in head.dataset ? 1 - found : found;
      const numbers = rows.map(({ cells }) => number(cells[at].textContent));
      const known = numbers.filter(found => !Number.isNaN(found)), least = Math.min(...known), most = Math.max(...known);
      rows.forEach(({ cells }, n) => cells[at].style.setProperty("--shade", on && most > least && !Number.isNaN(numbers[n]) ? better((numbers[n] - least) / (most - least)) : 0));
    }
  };
  let shaded = false;
  if (places.length) offer("shade", on => shade(shaded = on));
  if (box.querySelector("[data-gain]")) {
    const held = places.filter(at => rows.some(({ cells }) => cells[at].dataset.gain));
    const cells = rows.flatMap(({ cells }) => held.map(at => cells[at])), plain = cells.map(cell => cell.innerHTML);
    offer("gains in place of values", on => {
      cells.forEach((cell, n) => on ? cell.textContent = cell.dataset.gain ?? "–" : cell.innerHTML = plain[n]);
      shade(shaded);
    });
  }
  tools.append(count);
  box.prepend(tools);
}
