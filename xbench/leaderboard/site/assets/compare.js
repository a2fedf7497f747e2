/* compare.js: one explainer less another, for every metric.

     xbenchCompare.find(ranking, differences, first, second)
                       {one, other: their rows, value, low, high, p, paired, words} or {one, other, words: why there is none}
     xbenchCompare.show(host, [{ranking, differences}], first, second)

   `differences` of a ranking: the lists value, half and p run over the pairs of `who` (positions of rows): the first with
   each later one, the second with each later one, and so on; `paired` is true, false or such a list. */
"use strict";

const xbenchCompare = (() => {
  const { el, number, interval, probability, intervalBar, ranks, create, known, breakable } = xbenchTable;
  const LEVEL = 0.05;

  function find(ranking, differences, first, second) {
    const row = (name) => ranking.rows.find((one) => one.e === name);
    const one = row(first), other = row(second);
    if (!one || !other) return { one, other, words: "not scored" };
    const name = (found) => (found.same && row(found.same) ? found.same : found.e);
    if (name(one) === name(other)) return { one, other, words: "the same maps" };
    const place = (found) => differences.who.indexOf(ranking.rows.indexOf(row(name(found))));
    const i = place(one), j = place(other), many = differences.who.length;
    if (i < 0 || j < 0) return { one, other, words: "undefined" };
    const [low, high] = [Math.min(i, j), Math.max(i, j)];
    const at = (low * (2 * many - low - 1)) / 2 + (high - low - 1);
    const value = i < j ? differences.value[at] : -differences.value[at];
    const half = differences.half[at], p = differences.p[at];
    const told = known(p) && p < LEVEL;
    return {
      one, other, value, low: known(half) ? value - half : null, high: known(half) ? value + half : null, p,
      paired: Array.isArray(differences.paired) ? differences.paired[at] : differences.paired,
      words: !told ? "can’t be told apart" : value > 0 === ranking.higher ? "A is better" : "B is better",
    };
  }

  function bar(found) {
    if (!known(found.low)) return "";
    const most = Math.max(Math.abs(found.low), Math.abs(found.high)) || 1;
    return intervalBar({ value: found.value, low: found.low, high: found.high, min: -most, max: most, muted: !found.words.endsWith("better") });
  }

  function show(host, pairs, first, second) {
    if (first === second) return host.replaceChildren(el("p", { class: "note", text: "Choose two different explainers." }));
    const rows = pairs.map(({ ranking, differences }) => ({ ranking, ...find(ranking, differences, first, second) }));
    const count = (words) => rows.filter((row) => row.words === words).length;
    const better = el("p", { class: "said", role: "status" }, `Of ${rows.length} metrics A is better in ${count("A is better")}, B in ${count("B is better")}; they can’t be told apart in ${count("can’t be told apart")}.`);
    const shown = (row) => (row ? `${number(row.v)} (${ranks(row)})` : "–");
    const table = el("div");
    create(table, {
      caption: el("span", {}, el("strong", { text: "A" }), ` ${first} less `, el("strong", { text: "B" }), ` ${second}`),
      rows, empty: "no metric",
      columns: [
        { key: "metric", title: "metric", header: true, value: (row) => xbenchRankings.title(row.ranking), cell: (row) => breakable(`${xbenchRankings.title(row.ranking)} ${row.ranking.higher ? "▲" : "▼"}`) },
        { key: "verdict", title: "verdict", value: (row) => row.words, cell: (row) => el("span", { class: row.words.endsWith("better") ? "better" : null, text: row.words }) },
        { key: "difference", title: "A − B", numeric: true, descending: true, value: (row) => row.value, cell: (row) => number(row.value) },
        { key: "bar", title: "around zero", sortable: false, value: () => null, cell: bar },
        { key: "ci", title: "95 % CI", numeric: true, hint: "of this difference alone", value: (row) => row.low, cell: (row) => interval(row.low, row.high) },
        { key: "p", title: "p (Holm)", numeric: true, hint: "corrected for all pairs of the ranking", value: (row) => row.p, cell: (row) => probability(row.p) },
        { key: "a", title: "A (rank)", numeric: true, descending: true, value: (row) => row.one && row.one.v, cell: (row) => shown(row.one) },
        { key: "b", title: "B (rank)", numeric: true, descending: true, value: (row) => row.other && row.other.v, cell: (row) => shown(row.other) },
        { key: "paired", title: "paired", narrow: true, hint: "on the same seeds, resamples and classifiers", value: (row) => (row.paired === undefined ? "" : row.paired ? "yes" : "no") },
      ],
    });
    host.replaceChildren(better, table);
    return undefined;
  }

  return { find, show };
})();
