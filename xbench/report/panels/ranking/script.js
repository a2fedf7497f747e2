/* The ranking of a metric as a table, or all metrics side by side. */
"use strict";

(() => {
  const { el, number, interval, intervalBar, ranks, badges, create, known, breakable, probability } = xbenchTable;
  const { ALL, view, body, data, here, chosen, shown, keep, downloads } = xbenchPage;
  const unique = (values) => [...new Set(values)];
  let sort = null, sorted; // by which column, and the metric for which it was chosen

  function draw(place) {
    if (sorted !== undefined && sorted !== view.metric) sort = null;
    sorted = view.metric;
    const host = body("ranking"), rankings = place.rankings.filter(chosen);
    host.replaceChildren(...(view.metric === ALL ? overview(rankings) : rankings.map(ranking)), ...missing(place));
    host.setAttribute("aria-busy", "false");
    const rows = rankings.flatMap((one) => one.rows), fit = rows.filter((row) => shown(row.e, row.c));
    document.getElementById("status").textContent = `${view.metric}, ${view.sign} maps: ${unique(fit.map((row) => row.e)).length} of ${unique(rows.map((row) => row.e)).length} explainers`;
  }

  function ranking(one) {
    const ends = one.rows.flatMap((row) => [row.v, row.lo, row.hi]).filter(known);
    const [min, max] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    const names = one.rows.map((row) => row.e);
    const box = el("div", { class: "ranking" }), said = el("p", { class: "said note", "aria-live": "polite" });
    let picked = null;
    const filtered = () => one.rows.filter((row) => shown(row.e, row.c));
    const pick = (row) => {
      picked = picked === row ? null : row;
      made.update(filtered());
      const others = picked && picked.s.map((index) => names[index]);
      said.textContent = !picked ? "" : others.length ? `${picked.e} can’t be told apart from: ${others.join(", ")}` : `${picked.e} can be told apart from all others`;
      if (picked) box.querySelector('[aria-pressed="true"]').focus();
    };
    const columns = [
      { key: "rank", title: "rank", numeric: true, hint: "the ranks that the data allow, 95 %", value: (row) => row.r[0] || null, cell: (row) => ranks(row) || "–" },
      { key: "explainer", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {},
        el("button", { type: "button", class: "pick", "aria-pressed": picked === row, title: "show what it can’t be told apart from", on: { click: () => pick(row) } }, breakable(row.e)), ...badges(row)) },
      { key: "value", title: "value", numeric: true, descending: one.higher, value: (row) => row.v, cell: (row) => number(row.v) },
      { key: "bar", title: "95 % interval", sortable: false, value: () => null, cell: (row) => intervalBar({ value: row.v, low: row.lo, high: row.hi, min, max, muted: row.c }) },
      { key: "ci", title: "95 % CI", numeric: true, value: (row) => row.lo, cell: (row) => interval(row.lo, row.hi) },
      { key: "set", title: "can’t be told apart", numeric: true, hint: "how many explainers it can’t be told apart from", value: (row) => row.s.length, cell: (row) => String(row.s.length) },
      { key: "seconds", title: "seconds", numeric: true, narrow: true, hint: "training, maps and metric", value: (row) => row.t, cell: (row) => (known(row.t) ? row.t.toFixed(1) : "–") },
    ];
    if (one.rows.some((row) => row.d)) {
      columns.splice(5, 0,
        { key: "difference", title: `less ${one.reference}`, numeric: true, narrow: true, hint: "paired difference on the same resamples", value: (row) => (row.d ? row.d[0] : null), cell: (row) => (row.d ? `${number(row.d[0])} ${interval(row.d[1], row.d[2])}` : row.e === one.reference ? "reference" : "–") },
        { key: "p", title: "p (Holm)", numeric: true, narrow: true, value: (row) => (row.d ? row.d[3] : null), cell: (row) => (row.d ? probability(row.d[3]) : "") });
    }
    const caption = el("span", {}, el("strong", { text: one.metric }), ` ${one.higher ? "higher" : "lower"} is better; ${one.sign} maps of ${/^\d+$/.test(one.target) ? `class ${one.target}` : `the ${one.target} class`}`
      + `${one.subject === "self" ? ", against the explainers’ own classifiers" : ""}; ${one.n} ${one.split} samples of ${one.groups} patients; card ${one.card.slice(0, 8)}`);
    const host = el("div");
    const made = create(host, {
      caption, columns, rows: filtered(), sort: sort && columns.some((column) => column.key === sort.key) ? sort : null, empty: "no explainer fits the filter",
      rowClass: (row) => [row.c && "control", picked && (row === picked || picked.s.includes(names.indexOf(row.e))) && "related"].filter(Boolean).join(" ") || null,
      onSort: (found) => { sort = found; keep(); },
    });
    const warned = one.rows.filter((row) => row.w && shown(row.e, row.c)).map((row) => el("p", { class: "warning", text: `${row.e}: ${row.w}` }));
    box.append(host, said, ...warned, downloads(one.files) || "");
    return box;
  }

  /* A row per explainer, a column per metric; the best that is no control, and what can't be told apart from it, in bold. */
  function overview(rankings) {
    const rows = new Map();
    rankings.forEach((one, column) => one.rows.forEach((row, index) => {
      if (!rows.has(row.e)) rows.set(row.e, { e: row.e, c: row.c, cells: [] });
      const best = one.rows.findIndex((other) => !other.c && known(other.v));
      const bold = !row.c && best >= 0 && (index === best || one.rows[best].s.includes(index));
      rows.get(row.e).cells[column] = { row, bold };
    }));
    const columns = [
      { key: "explainer", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {}, breakable(row.e), ...badges({ c: row.c })) },
      ...rankings.map((one, column) => ({
        key: `metric-${column}`, title: one.metric + (one.subject === "self" ? " (own model)" : ""), numeric: true, descending: one.higher, hint: `${one.higher ? "higher" : "lower"} is better; card ${one.card.slice(0, 8)}`,
        value: (row) => (row.cells[column] ? row.cells[column].row.v : null),
        cell: (row) => {
          const found = row.cells[column];
          if (!found) return "–";
          return el("span", { class: "cell", title: interval(found.row.lo, found.row.hi) }, found.bold ? el("strong", { text: number(found.row.v) }) : number(found.row.v), el("small", { text: ` ${ranks(found.row) || "–"}` }));
        },
      })),
    ];
    const host = el("div");
    create(host, {
      caption: el("span", {}, el("strong", { text: ALL }), ` ${view.sign} maps; the small number is the rank. Bold: the best explainer and those that can’t be told apart from it.`),
      columns, rows: [...rows.values()].filter((row) => shown(row.e, row.c)), sort: sort && columns.some((column) => column.key === sort.key) ? sort : null,
      rowClass: (row) => (row.c ? "control" : null), onSort: (found) => { sort = found; keep(); },
    });
    const tex = data("ranking").find(here).tex[view.sign];
    return [host, downloads({ tex }) || ""];
  }

  function missing(place) {
    const found = place.missing.filter((one) => chosen(one) && shown(one.e, false));
    return found.length ? [el("details", {}, el("summary", { text: `${found.length} without a value` }), el("ul", {}, ...found.map((one) => el("li", { text: `${one.e} (${one.metric}, ${one.sign}), ${one.status}: ${one.why}` }))))] : [];
  }

  xbenchPage.panel("ranking", {
    read(saved) { sort = saved.sort ? { key: saved.sort.replace(/^-/, ""), descending: saved.sort.startsWith("-") } : null; },
    kept: () => ({ sort: sort ? (sort.descending ? "-" : "") + sort.key : "" }),
    wait() { body("ranking").setAttribute("aria-busy", "true"); },
    fail(error) { body("ranking").replaceChildren(el("p", { class: "warning", text: error.message })); },
    draw,
  });
})();
