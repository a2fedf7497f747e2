/* What each explainer cost, as a table. */
"use strict";

(() => {
  const { el, create, known, breakable } = xbenchTable;
  const { body, shown } = xbenchPage;

  function draw(costs) {
    const rows = costs.filter((row) => shown(row.e, row.c)), host = el("div");
    const seconds = (key, title, hint) => ({ key, title, hint, numeric: true, value: (row) => row[key], cell: (row) => (known(row[key]) ? row[key].toFixed(1) : "–") });
    const count = (key, title, hint, scale = 1) => ({ key, title, hint, numeric: true, narrow: true, value: (row) => row[key] ?? null, cell: (row) => (known(row[key]) ? Math.round(row[key] / scale).toLocaleString("en") : "–") });
    create(host, { caption: "Seconds on the machine named below, and images passed through the classifier for the maps of the whole split", rows, rowClass: (row) => (row.c ? "control" : null), columns: [
      { key: "e", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {}, breakable(row.e), row.c ? el("span", { class: "badge", text: "control" }) : "") },
      seconds("fit", "training, s", "once per model"), seconds("maps", "maps, s", "of the whole split"), seconds("metrics", "metrics, s", "all metrics and signs"),
      count("forward", "forward passes", "images"), count("backward", "backward passes", "images"), count("bytes", "peak MiB", "of the process or the device", 1048576),
    ] });
    body("cost").replaceChildren(host);
  }

  xbenchPage.panel("cost", { draw });
})();
