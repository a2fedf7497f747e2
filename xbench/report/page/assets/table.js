/* table.js: sortable, filterable tables of scores in plain JavaScript, for pages that open from file:// as well.

   No dependencies, no modules (browsers refuse those from file://), nothing global but `xbenchTable`:

     el(tag, attributes, ...children)   an element; strings become text, never HTML. {class, text, on: {click: f}, ...}
     svg(tag, attributes, ...children)  the same in SVG's namespace
     number(value)                      three decimals, an exponent where they would hide the number, a dash for null
     interval(low, high)                "[0.349, 0.439]", or a dash
     probability(p)                     "0.034", "<0.001", or a dash
     intervalBar({value, low, high, min, max, muted})   a small picture of an interval on the scale [min, max]
     breakable(text)                    the text with places to break a line behind : - _ , / and =
     ranks({r: [best, worst]})          "1" or "2–4"; empty without a rank
     badges({c, own, same, w})          what is said of an explainer: control, own model, same maps as another, warning
     matches(text, query)               whether every word of the query is in the text, whatever the case
     choose(select, values, chosen)     fill a <select> with strings or [value, words]
     state.read(), state.write(object)  text kept in the URL's fragment: "#sign=absolute&q=vinet"; nothing is sent
     state.jump(event)                  for clicks: a link to a section leaves the fragment as it is
     create(host, options)              a table in `host`; returns {update(rows), table}

   create's options:
     caption   text, or a node; stands above the table and names it
     columns   [{key, title, value(row), cell(row), numeric, header, hint, sortable, descending, narrow}]
                 value: what is sorted by (numbers, or text); null and NaN always come last
                 cell: what is shown (text or a node); without it the value
                 header: the row's name (<th scope="row">), which stays in sight when the table scrolls sideways
                 descending: the first click sorts from the largest; narrow: hidden on a phone
     rows      any objects
     sort      {key, descending}, or null for the order given
     rowClass(row), onSort(sort), empty (text for a table without rows)

   The head holds buttons, so Tab, Enter and Space work; aria-sort says what is sorted. Styles: base.css. */
"use strict";

const xbenchTable = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined) continue;
      if (value === false && !name.startsWith("aria-")) continue;
      if (name === "text") node.textContent = value;
      else if (name === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
      else node.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  let made = 0; // tables, for their ids

  const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  function number(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    const text = value && !(size >= 0.0005 && size < 10000) ? value.toExponential(2) : value.toFixed(3);
    return text.replace("-", "−");
  }

  const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
  const interval = (low, high) => (known(low) && known(high) ? `[${number(low)}, ${number(high)}]` : "–");

  const probability = (p) => (!known(p) ? "–" : p < 0.001 ? "<0.001" : p.toFixed(3));

  const ranks = ({ r: [best, worst] }) => (best === worst ? String(best || "") : `${best}–${worst}`); // 0 stands for no rank

  function badges(row) {
    const found = [];
    if (row.c) found.push(el("span", { class: "badge", text: "control" }));
    if (row.own) found.push(el("span", { class: "badge", title: "scored against its own classifier", text: "own model" }));
    if (row.same) found.push(el("span", { class: "badge", title: "the same maps: one method", text: `= ${row.same}` }));
    if (row.w) found.push(el("span", { class: "badge warn", title: row.w, text: "⚠︎ warning" }));
    return found;
  }

  function intervalBar({ value, low, high, min, max, muted }) {
    const width = 120, height = 16, span = max - min || 1;
    const x = (at) => (3 + ((at - min) / span) * (width - 6)).toFixed(1);
    const bar = svg("svg", { class: muted ? "bar muted" : "bar", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    bar.append(svg("line", { class: "track", x1: 0, x2: width, y1: height / 2, y2: height / 2 }));
    if (min < 0 && max > 0) bar.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 1, y2: height - 1 }));
    if (known(low) && known(high)) bar.append(svg("line", { class: "range", x1: x(low), x2: x(high), y1: height / 2, y2: height / 2 }));
    if (known(value)) bar.append(svg("circle", { cx: x(value), cy: height / 2, r: 2.4 }));
    return bar;
  }

  function matches(text, query) {
    const low = text.toLowerCase();
    return query.toLowerCase().split(/\s+/).every((word) => low.includes(word));
  }

  function breakable(text) {
    const parts = text.split(/(?<=[:\-_,/=])/).flatMap((part) => [part, document.createElement("wbr")]);
    const node = document.createDocumentFragment();
    node.append(...parts.slice(0, -1));
    return node;
  }

  function choose(select, values, chosen) {
    select.replaceChildren(...values.map((one) => {
      const [value, words] = Array.isArray(one) ? one : [one, one];
      const option = el("option", { value, text: words });
      option.selected = value === chosen;
      return option;
    }));
  }

  const state = {
    read() {
      const text = location.hash.slice(1);
      return text.includes("=") ? Object.fromEntries(new URLSearchParams(text)) : {};
    },
    write(values) {
      const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
      const text = new URLSearchParams(kept).toString();
      history.replaceState(null, "", text ? `#${text}` : location.pathname.split("/").pop() || "#");
    },
    jump(event) {
      const link = event.target.closest('a[href^="#"]');
      const target = link && document.getElementById(link.getAttribute("href").slice(1));
      if (!target) return;
      event.preventDefault();
      target.scrollIntoView();
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
    },
  };

  function compare(one, other, descending) {
    if (!known(one) || !known(other)) return known(other) - known(one); // what has no value comes last, both ways
    const order = typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;
    return descending ? -order : order;
  }

  function create(host, { caption, columns, rows, sort = null, rowClass, onSort, empty = "nothing fits" }) {
    const body = el("tbody");
    const heads = columns.map((column) => {
      const kind = [column.numeric && "numeric", column.narrow && "narrow", column.header && "name"].filter(Boolean).join(" ");
      if (column.sortable === false) return el("th", { scope: "col", class: kind, text: column.title, title: column.hint });
      const button = el("button", { type: "button", title: column.hint, on: { click: () => turn(column) } },
        el("span", { text: column.title }), el("span", { class: "arrow", "aria-hidden": "true" }));
      return el("th", { scope: "col", class: kind }, button);
    });
    const id = `table-${++made}`;
    const table = el("table", { class: "scores", "aria-labelledby": caption ? id : null },
      el("thead", {}, el("tr", {}, ...heads)), body);
    const scroller = el("div", { class: "scroller" }, table);
    // Not a <caption>: that would be as wide as a table that scrolls sideways.
    host.replaceChildren(...(caption ? [el("p", { class: "caption", id }, caption)] : []), scroller);

    function turn(column) {
      const same = sort && sort.key === column.key;
      sort = { key: column.key, descending: same ? !sort.descending : Boolean(column.descending) };
      draw();
      if (onSort) onSort(sort);
    }

    function draw() {
      const column = sort && columns.find((one) => one.key === sort.key);
      const ordered = column
        ? [...rows].sort((one, other) => compare(column.value(one), column.value(other), sort.descending))
        : rows;
      heads.forEach((head, at) => {
        const sorted = column === columns[at];
        const direction = sort && sort.descending ? "descending" : "ascending";
        if (columns[at].sortable !== false) head.setAttribute("aria-sort", sorted ? direction : "none");
      });
      body.replaceChildren(...ordered.map((row) => el("tr", { class: rowClass && rowClass(row) }, ...columns.map((one) => {
        const content = one.cell ? one.cell(row) : one.value(row);
        const kind = [one.numeric && "numeric", one.narrow && "narrow", one.header && "name"].filter(Boolean).join(" ");
        return el(one.header ? "th" : "td", { scope: one.header && "row", class: kind || null }, content ?? "");
      }))));
      if (!ordered.length) body.append(el("tr", {}, el("td", { colspan: columns.length, class: "empty", text: empty })));
    }

    // Only what scrolls sideways needs a place in the order of Tab.
    const watch = new ResizeObserver(() => {
      const wide = scroller.scrollWidth > scroller.clientWidth + 1;
      if (wide) {
        scroller.tabIndex = 0;
        scroller.setAttribute("role", "region");
        scroller.setAttribute("aria-label", "table, scrolls sideways");
      } else {
        scroller.removeAttribute("tabindex");
        scroller.removeAttribute("role");
        scroller.removeAttribute("aria-label");
      }
    });
    watch.observe(scroller);
    draw();
    return { table, update(changed) { rows = changed; draw(); } };
  }

  return { el, svg, number, interval, probability, intervalBar, ranks, badges, matches, choose, state, create, known, breakable };
})();
