/* charts.js: curves as small multiples in inline SVG, and the heat table of agreements. */
"use strict";

const xbenchCharts = (() => {
  const { el, svg, number, known, breakable } = xbenchTable;
  const WIDTH = 180, HEIGHT = 118, LEFT = 30, TOP = 6, BOTTOM = 20, RIGHT = 6;

  function range(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) if (known(value)) { low = Math.min(low, value); high = Math.max(high, value); }
    if (!(low <= high)) return [0, 1];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  }

  const short = (value) => (Math.abs(value) >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(2)).replace("-", "−");

  function path(x, y, toX, toY) {
    let pen = "M";
    return y.map((value, at) => {
      if (!known(value) || !known(x[at])) { pen = "M"; return ""; }
      const step = `${pen}${toX(x[at]).toFixed(1)} ${toY(value).toFixed(1)}`;
      pen = "L";
      return step;
    }).join("");
  }

  /* The area between two curves on the same x. */
  function between(x, one, other, toX, toY) {
    const there = x.map((_, at) => at).filter((at) => known(x[at]) && known(one[at]) && known(other[at]));
    const points = [...there.map((at) => `${toX(x[at]).toFixed(1)},${toY(one[at]).toFixed(1)}`),
      ...there.reverse().map((at) => `${toX(x[at]).toFixed(1)},${toY(other[at]).toFixed(1)}`)];
    return points.join(" ");
  }

  function words(series, table) {
    const parts = Object.entries(series.y).map(([name, y]) => {
      const there = y.filter(known);
      return there.length ? `${name} from ${number(there[0])} to ${number(there[there.length - 1])}` : `${name} undefined`;
    });
    return `${series.e}: ${table.y} over ${table.x}; ${parts.join("; ")}`;
  }

  function panel(series, table, reference, [x0, x1], [y0, y1]) {
    const toX = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
    const toY = (value) => HEIGHT - BOTTOM - ((value - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words(series, table) });
    for (const y of [y0, (y0 + y1) / 2, y1]) {
      picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: toY(y), y2: toY(y) }));
      picture.append(svg("text", { class: "tick", x: LEFT - 4, y: toY(y) + 3, "text-anchor": "end", text: short(y) }));
    }
    for (const x of [x0, x1]) picture.append(svg("text", { class: "tick", x: toX(x), y: HEIGHT - 6, "text-anchor": x === x0 ? "start" : "end", text: short(x) }));
    if (reference && reference !== series) {
      for (const y of Object.values(reference.y)) picture.append(svg("path", { class: "reference", d: path(reference.x, y, toX, toY) }));
    }
    const curves = Object.values(series.y);
    if (curves.length === 2) picture.append(svg("polygon", { class: "between", points: between(series.x, curves[0], curves[1], toX, toY) }));
    curves.forEach((y, at) => picture.append(svg("path", { class: `curve curve-${at % 4}`, d: path(series.x, y, toX, toY) })));
    return el("figure", { class: series.c ? "panel control" : "panel" }, el("figcaption", {}, breakable(series.e)), picture);
  }

  /* One small panel an explainer, all to one scale, the random control in grey behind each. */
  function curves(table, shown) {
    const chosen = table.series.filter(shown);
    if (!chosen.length) return el("p", { class: "note", text: "nothing fits the filter" });
    const xs = range(table.series.flatMap((one) => one.x));
    const ys = range(table.series.flatMap((one) => Object.values(one.y).flat()));
    const reference = table.series.find((one) => one.c && one.e.startsWith("random"));
    const names = Object.keys(chosen[0].y);
    const key = el("p", { class: "key" }, ...names.map((name, at) => el("span", {},
      svg("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, svg("path", { class: `curve curve-${at % 4}`, d: "M1 4L23 4" })), name)));
    if (reference) key.append(el("span", {}, svg("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, svg("path", { class: "reference", d: "M1 4L23 4" })), "control: random"));
    return el("div", {}, key, el("p", { class: "note", text: `${table.y} over ${table.x}` }),
      el("div", { class: "panels" }, ...chosen.sort((a, b) => a.c - b.c).map((one) => panel(one, table, reference, xs, ys))));
  }

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

  return { curves, heat };
})();
