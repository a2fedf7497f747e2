/* The agreement of metrics: a heat table, and all pairs with intervals. */
"use strict";

(() => {
  const { el, create, known, breakable, probability } = xbenchTable;
  const { view, body, downloads } = xbenchPage;

  /* Above the diagonal Spearman's rho, below it Kendall's tau-b. */
  function heat(agreement) {
    const names = agreement.metrics, cell = new Map();
    for (const pair of agreement.pairs) {
      cell.set(`${pair.a},${pair.b}`, pair.rho);
      cell.set(`${pair.b},${pair.a}`, pair.tau);
    }
    const draw = (row, column) => {
      if (row === column) return el("td", { class: "self", text: "" });
      const found = cell.get(`${row},${column}`);
      if (!found || !known(found[0])) return el("td", { text: "–" });
      const [value, , , p] = found, share = Math.round(Math.abs(value) * 100);
      const node = el("td", { class: value < 0 ? "against" : "with", text: value.toFixed(2).replace("-", "−") + (known(p) && p < 0.05 ? "*" : "") });
      node.style.setProperty("--share", `${share}%`);
      return node;
    };
    return el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "agreement of metrics, scrolls sideways" }, el("table", { class: "heat", "aria-label": agreement.place },
      el("thead", {}, el("tr", {}, el("td"), ...names.map((name) => el("th", { scope: "col" }, breakable(name))))),
      el("tbody", {}, ...names.map((name, row) => el("tr", {}, el("th", { scope: "row" }, breakable(name)), ...names.map((_, column) => draw(row, column)))))));
  }

  function draw(agreements) {
    const found = agreements.filter((one) => one.sign === view.sign);
    const host = body("agreement");
    if (!found.length) return host.replaceChildren(el("p", { class: "note", text: "It takes two metrics and two explainers to ask." }));
    host.replaceChildren(el("p", { text: "How far two metrics put the same explainers in the same order, controls left out. Above the diagonal Spearman’s ρ, below it Kendall’s τ-b; * p < 0.05 by permutation of the explainers." }), ...found.map((one) => {
      const box = el("div");
      const middle = (key) => ({ key, numeric: true, value: (row) => row[key][0], cell: (row) => `${known(row[key][0]) ? row[key][0].toFixed(2).replace("-", "−") : "–"} ${known(row[key][1]) ? `[${row[key][1].toFixed(2)}, ${row[key][2].toFixed(2)}]`.replace(/-/g, "−") : ""}` });
      create(box, { caption: one.place, rows: one.pairs, columns: [
        { key: "a", title: "metric", header: true, value: (row) => one.metrics[row.a] }, { key: "b", title: "and", value: (row) => one.metrics[row.b] },
        { key: "n", title: "explainers", numeric: true, narrow: true, value: (row) => row.n, cell: (row) => String(row.n) },
        { ...middle("rho"), title: "Spearman’s ρ [95 % CI]", descending: true }, { key: "p", title: "p", numeric: true, narrow: true, value: (row) => row.rho[3], cell: (row) => probability(row.rho[3]) },
        { ...middle("tau"), title: "Kendall’s τ-b [95 % CI]", descending: true }, { key: "q", title: "p", numeric: true, narrow: true, value: (row) => row.tau[3], cell: (row) => probability(row.tau[3]) },
      ] });
      return el("div", {}, heat(one), one.pairs.length > 12 ? el("details", {}, el("summary", { text: `All ${one.pairs.length} pairs` }), box) : box, downloads(one.files));
    }));
  }

  xbenchPage.panel("agreement", { draw });
})();
