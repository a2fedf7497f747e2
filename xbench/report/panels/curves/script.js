/* Curves as small multiples in inline SVG. */
"use strict";

(() => {
  const { el, svg, number, known, breakable } = xbenchTable;
  const { view, body, chosen, shown, downloads } = xbenchPage;
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
    Object.entries(series.y).forEach(([name, y]) => picture.append(svg("path", { class: `curve curve-${series.look[name]}`, d: path(series.x, y, toX, toY) })));
    return el("figure", { class: series.c ? "panel control" : "panel" }, el("figcaption", {}, breakable(series.e)), picture);
  }

  /* One small panel an explainer, all to one scale, the random control in grey behind each. */
  function curves(table) {
    const series = table.series.filter((one) => shown(one.e, one.c));
    if (!series.length) return el("p", { class: "note", text: "nothing fits the filter" });
    const xs = range(table.series.flatMap((one) => one.x));
    const ys = range(table.series.flatMap((one) => Object.values(one.y).flat()));
    const reference = table.series.find((one) => one.c && one.e.startsWith("random"));
    const names = Object.keys(series[0].y);
    const key = el("p", { class: "key" }, ...names.map((name) => el("span", {},
      svg("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, svg("path", { class: `curve curve-${series[0].look[name]}`, d: "M1 4L23 4" })), name)));
    if (reference) key.append(el("span", {}, svg("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, svg("path", { class: "reference", d: "M1 4L23 4" })), "control: random"));
    return el("div", {}, key, el("p", { class: "note", text: `${table.y} over ${table.x}` }),
      el("div", { class: "panels" }, ...series.sort((a, b) => a.c - b.c).map((one) => panel(one, table, reference, xs, ys))));
  }

  function draw(tables) {
    const found = tables.filter(chosen);
    body("curves").replaceChildren(...(found.length ? found.map((one) => el("div", {}, el("h3", { text: one.metric }), curves(one), downloads(one.files)))
      : [el("p", { class: "note", text: `${view.metric} has no curves in these runs.` })]));
  }

  xbenchPage.panel("curves", { draw });
})();
