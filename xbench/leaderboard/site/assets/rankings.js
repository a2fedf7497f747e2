/* rankings.js: a ranking as a table, and all rankings side by side.

     xbenchRankings.title(ranking)             the metric, and what tells it from others of its name
     xbenchRankings.overview(host, rankings, {shown, sign, sort, onSort})   draws; returns the number of rows shown
     xbenchRankings.ranking(ranking, {shown, submitters, suite, sort, onSort, address, open})   returns a node */
"use strict";

const xbenchRankings = (() => {
  const { el, number, interval, intervalBar, ranks, badges, create, known, breakable } = xbenchTable;

  const title = (ranking) => ranking.metric + (ranking.apart ? ` (${ranking.apart})` : "");
  const usable = (columns, sort) => (sort && columns.some((column) => column.key === sort.key) ? sort : null);

  /* The best explainer that is no control, and those it can't be told apart from: positions. */
  function leaders(ranking) {
    const best = ranking.rows.findIndex((row) => !row.c && known(row.v));
    if (best < 0) return new Set();
    const names = [best, ...ranking.rows[best].s].map((index) => ranking.rows[index].e);
    const leads = (row) => !row.c && (names.includes(row.e) || names.includes(row.same));
    return new Set(ranking.rows.flatMap((row, index) => (leads(row) ? [index] : [])));
  }

  function overview(host, rankings, { shown, sign, sort, onSort }) {
    const rows = new Map();
    rankings.forEach((one, column) => {
      const lead = leaders(one);
      one.rows.forEach((row, index) => {
        if (!shown(row)) return;
        if (!rows.has(row.e)) rows.set(row.e, { e: row.e, c: row.c, warnings: [], cells: [] });
        if (row.w) rows.get(row.e).warnings.push(row.w);
        rows.get(row.e).cells[column] = { row, bold: lead.has(index) };
      });
    });
    const cell = (found) => el("span", { class: "cell", title: interval(found.row.lo, found.row.hi) },
      el(found.bold ? "strong" : "span", { text: number(found.row.v) }), el("small", { text: ` ${ranks(found.row)}` }));
    const columns = [
      { key: "explainer", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {}, breakable(row.e), ...badges({ c: row.c, w: [...new Set(row.warnings)].join("; ") })) },
      ...rankings.map((one, column) => ({
        key: title(one), title: `${title(one)} ${one.higher ? "▲" : "▼"}`, numeric: true, descending: one.higher, hint: `${one.higher ? "higher" : "lower"} is better; card ${one.card.slice(0, 8)}`,
        value: (row) => (row.cells[column] ? row.cells[column].row.v : null),
        cell: (row) => (row.cells[column] ? cell(row.cells[column]) : "–"),
      })),
    ];
    create(host, {
      caption: `${sign === "original" ? "Original" : "Absolute"} maps. ▲ higher is better, ▼ lower. The small numbers are the ranks that the data allow; bold: the best explainer and those that can’t be told apart from it.`,
      columns, rows: [...rows.values()], sort: usable(columns, sort), rowClass: (row) => (row.c ? "control" : null), onSort, empty: "no explainer fits the filters",
    });
    return rows.size;
  }

  function caption(ranking) {
    const target = /^\d+$/.test(ranking.target) ? `class ${ranking.target}` : `the ${ranking.target} class`;
    const own = ranking.subject === "self" ? ", each against its own classifier" : "";
    return el("span", {}, el("strong", { text: title(ranking) }), ` ${ranking.higher ? "higher" : "lower"} is better; ${ranking.sign} maps of ${target}, ${ranking.split} split${own}; card ${ranking.card.slice(0, 8)}`);
  }

  function ranking(one, { shown, submitters, suite, sort, onSort, address, open }) {
    const ends = one.rows.flatMap((row) => [row.v, row.lo, row.hi]).filter(known);
    const [min, max] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    const box = el("div", { class: "ranking" }), said = el("p", { class: "said note", "aria-live": "polite" });
    const rows = one.rows.filter(shown);
    let picked = null;
    const pick = (row) => {
      picked = picked === row ? null : row;
      made.update(rows);
      const others = picked && picked.s.map((index) => one.rows[index].e);
      said.textContent = !picked ? "" : others.length ? `${picked.e} can’t be told apart from: ${others.join(", ")}` : `${picked.e} can be told apart from all others`;
      if (picked) box.querySelector('[aria-pressed="true"]').focus();
    };
    const related = (row) => picked && (row === picked || picked.s.includes(one.rows.indexOf(row)));
    const seeds = (row) => suite.origins[row.o].runs.map((run) => suite.runs[run].seed);
    const columns = [
      { key: "rank", title: "rank", numeric: true, hint: "the ranks that the data allow, 95 %", value: (row) => row.r[0] || null, cell: ranks },
      { key: "explainer", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {},
        el("button", { type: "button", class: "pick", "aria-pressed": picked === row, title: "show what it can’t be told apart from", on: { click: () => pick(row) } }, breakable(row.e)), ...badges(row)) },
      { key: "value", title: "value", numeric: true, descending: one.higher, value: (row) => row.v, cell: (row) => number(row.v) },
      { key: "bar", title: "95 % interval", sortable: false, value: () => null, cell: (row) => intervalBar({ value: row.v, low: row.lo, high: row.hi, min, max, muted: row.c }) },
      { key: "ci", title: "95 % CI", numeric: true, value: (row) => row.lo, cell: (row) => interval(row.lo, row.hi) },
      { key: "set", title: "can’t be told apart", numeric: true, narrow: true, hint: "how many explainers it can’t be told apart from", value: (row) => row.s.length, cell: (row) => String(row.s.length) },
      { key: "n", title: "n", numeric: true, hint: "samples", value: (row) => row.n },
      { key: "seeds", title: "seeds", numeric: true, descending: true, hint: "how many", value: (row) => row.f.length, cell: (row) => el("span", { title: seeds(row).join(", ") }, String(row.f.length)) },
      { key: "by", title: "by", narrow: true, value: (row) => submitters(row).join(", "), cell: (row) => el("span", { class: "by", title: submitters(row).join(", "), text: submitters(row).join(", ") }) },
      { key: "how", title: "row", sortable: false, value: () => null, cell: (row) => el("a", {
        class: "how", href: address(one, row), "aria-label": `reproduce ${row.e}`, on: { click: (event) => { if (!event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); open(one, row); } } } }, "reproduce") },
    ];
    const host = el("div");
    const made = create(host, {
      caption: caption(one), columns, rows, sort: usable(columns, sort), onSort, empty: "no explainer fits the filters",
      rowClass: (row) => [row.c && "control", related(row) && "related"].filter(Boolean).join(" ") || null,
    });
    const warned = rows.filter((row) => row.w).map((row) => el("p", { class: "warning", text: `${row.e}: ${row.w}` }));
    box.append(host, said, ...warned);
    return box;
  }

  return { title, overview, ranking };
})();
