/* page.js: what the reader chose (kept in the URL's fragment), and the parts of the page that follow from it. */
"use strict";

const xbenchPage = (() => {
  const { el, number, interval, intervalBar, matches, choose, state, create, known, breakable } = xbenchTable;
  const waiting = new Map(), arrived = new Map();
  const ALL = "all metrics";
  const at = (id) => document.getElementById(id);
  let report, view, place, gallery;

  /* Data comes by scripts that call xbenchData(name, data): a page from file:// may load scripts, but not fetch. */
  function arrive(name, data) {
    arrived.set(name, data);
    if (name === "report") return start(data);
    if (waiting.has(name)) waiting.get(name)(data);
  }

  function load(path) {
    const name = path.replace(/^data\/|\.js$/g, "");
    if (arrived.has(name)) return Promise.resolve(arrived.get(name));
    return new Promise((done, fail) => {
      waiting.set(name, done);
      document.head.append(el("script", { src: path, on: { error: () => fail(new Error(`${path} is missing`)) } }));
    });
  }

  // --- what is chosen ---------------------------------------------------------------------------------------------

  const current = () => report.places.find((one) => one.dataset === view.dataset && one.model === view.model);
  const unique = (values) => [...new Set(values)];
  const shown = (name, control) => (view.controls || !control) && matches(name, view.query);

  function start(data) {
    report = data;
    const saved = state.read();
    view = {
      dataset: saved.dataset, model: saved.model, metric: saved.metric, sign: saved.sign, query: saved.q || "",
      controls: saved.controls !== "no", sort: saved.sort ? { key: saved.sort.replace(/^-/, ""), descending: saved.sort.startsWith("-") } : null,
      gallery: { order: saved.order || "hardest", case: saved.case, opacity: known(saved.opacity) ? Math.min(1, Math.max(0, Number(saved.opacity) || 0)) : 1, absolute: saved.absolute === "yes", outline: saved.outline !== "no" },
    };
    if (!report.places.length) return;
    at("dataset").addEventListener("change", () => { view.dataset = at("dataset").value; moved(); });
    at("model").addEventListener("change", () => { view.model = at("model").value; moved(); });
    at("metric").addEventListener("change", () => { view.metric = at("metric").value; view.sort = null; draw(); });
    at("controls").addEventListener("change", () => { view.controls = at("controls").checked; draw(); });
    at("query").addEventListener("input", () => { view.query = at("query").value; draw(); });
    document.querySelector(".lens").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("click", state.jump);
    at("query").value = view.query;
    at("controls").checked = view.controls;
    moved();
    const section = location.hash.slice(1);
    if (section && !section.includes("=") && at(section)) at(section).scrollIntoView();
  }

  function keep() {
    const first = report.places[0], shape = view.gallery;
    state.write({
      dataset: view.dataset === first.dataset ? "" : view.dataset, model: view.model === first.model ? "" : view.model,
      metric: view.metric === first.metrics[0] ? "" : view.metric, sign: view.sign === first.signs[0] ? "" : view.sign, q: view.query,
      controls: view.controls ? "" : "no", sort: view.sort ? (view.sort.descending ? "-" : "") + view.sort.key : "",
      order: shape.order === "hardest" ? "" : shape.order, case: shape.case === shape.first ? "" : shape.case,
      opacity: shape.opacity === 1 ? "" : shape.opacity, absolute: shape.absolute ? "yes" : "", outline: shape.outline ? "" : "no",
    });
  }

  async function moved() {
    const datasets = unique(report.places.map((one) => one.dataset));
    if (!datasets.includes(view.dataset)) view.dataset = datasets[0];
    const models = report.places.filter((one) => one.dataset === view.dataset).map((one) => one.model);
    if (!models.includes(view.model)) view.model = models[0];
    const here = current();
    const metrics = here.metrics.length > 1 ? [...here.metrics, ALL] : here.metrics;
    if (!metrics.includes(view.metric)) view.metric = metrics[0];
    if (!here.signs.includes(view.sign)) view.sign = here.signs[0];
    choose(at("dataset"), datasets, view.dataset);
    choose(at("model"), models, view.model);
    choose(at("metric"), metrics, view.metric);
    at("dataset-label").hidden = datasets.length < 2;
    at("model-label").hidden = models.length < 2;
    at("sign-fields").hidden = here.signs.length < 2;
    at("sign").replaceChildren(...here.signs.map((sign) => {
      const input = el("input", { type: "radio", name: "sign", value: sign, on: { change: () => { view.sign = sign; draw(); } } });
      input.checked = sign === view.sign;
      return el("label", {}, input, el("span", { text: sign }));
    }));
    at("ranking-body").setAttribute("aria-busy", "true");
    try {
      place = await load(here.script);
    } catch (error) {
      at("ranking-body").replaceChildren(el("p", { class: "warning", text: `${error.message}: keep the report's folder together` }));
      return;
    }
    if (here !== current()) return;
    draw();
    openGallery();
    openStrips();
  }

  function draw() {
    keep();
    drawRanking();
    drawCurves();
    drawAgreement();
    drawCost();
    if (gallery) gallery.filter({ query: view.query, controls: view.controls });
    at("ranking-body").setAttribute("aria-busy", "false");
    const rows = place.rankings.filter(chosen).flatMap((one) => one.rows), fit = rows.filter((row) => shown(row.e, row.c));
    at("status").textContent = `${view.metric}, ${view.sign} maps: ${unique(fit.map((row) => row.e)).length} of ${unique(rows.map((row) => row.e)).length} explainers`;
  }

  const chosen = (one) => one.sign === view.sign && (view.metric === ALL || one.metric === view.metric);
  const files = (found) => Object.entries(found || {}).map(([kind, path]) => el("a", { href: path, download: true, text: kind.toUpperCase() }));
  const downloads = (found) => {
    const links = files(found);
    return links.length ? el("p", { class: "files no-print" }, "Download: ", ...links) : null;
  };

  // --- ranking ----------------------------------------------------------------------------------------------------

  function drawRanking() {
    const host = at("ranking-body"), rankings = place.rankings.filter(chosen);
    if (view.metric === ALL) return host.replaceChildren(...overview(rankings), ...missing());
    host.replaceChildren(...rankings.map(ranking), ...missing());
  }

  function badges(row) {
    const found = [];
    if (row.c) found.push(el("span", { class: "badge", text: "control" }));
    if (row.own) found.push(el("span", { class: "badge", title: "scored against its own classifier", text: "own model" }));
    if (row.same) found.push(el("span", { class: "badge", title: "the same maps: one method", text: `= ${row.same}` }));
    if (row.w) found.push(el("span", { class: "badge warn", title: row.w, text: "⚠︎ warning" }));
    return found;
  }

  const ranks = (row) => (!row.r[0] ? "–" : row.r[0] === row.r[1] ? String(row.r[0]) : `${row.r[0]}–${row.r[1]}`);
  const probability = (p) => (!known(p) ? "–" : p < 0.001 ? "<0.001" : p.toFixed(3));

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
      said.textContent = !picked ? "" : others.length ? `${picked.e} can’t be told from: ${others.join(", ")}` : `${picked.e} is told from all others`;
      if (picked) box.querySelector('[aria-pressed="true"]').focus();
    };
    const columns = [
      { key: "rank", title: "rank", numeric: true, hint: "the ranks that the data allow, 95 %", value: (row) => row.r[0] || null, cell: ranks },
      { key: "explainer", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {},
        el("button", { type: "button", class: "pick", "aria-pressed": picked === row, title: "show what it can’t be told from", on: { click: () => pick(row) } }, breakable(row.e)), ...badges(row)) },
      { key: "value", title: "value", numeric: true, descending: one.higher, value: (row) => row.v, cell: (row) => number(row.v) },
      { key: "bar", title: "95 % interval", sortable: false, value: () => null, cell: (row) => intervalBar({ value: row.v, low: row.lo, high: row.hi, min, max, muted: row.c }) },
      { key: "ci", title: "95 % CI", numeric: true, value: (row) => row.lo, cell: (row) => interval(row.lo, row.hi) },
      { key: "set", title: "not told from", numeric: true, hint: "how many explainers it can’t be told from", value: (row) => row.s.length, cell: (row) => String(row.s.length) },
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
      caption, columns, rows: filtered(), sort: view.sort && columns.some((column) => column.key === view.sort.key) ? view.sort : null, empty: "no explainer fits the filter",
      rowClass: (row) => [row.c && "control", picked && (row === picked || picked.s.includes(names.indexOf(row.e))) && "related"].filter(Boolean).join(" ") || null,
      onSort: (sort) => { view.sort = sort; keep(); },
    });
    const warned = one.rows.filter((row) => row.w && shown(row.e, row.c)).map((row) => el("p", { class: "warning", text: `${row.e}: ${row.w}` }));
    box.append(host, said, ...warned, downloads(one.files) || "");
    return box;
  }

  /* A row per explainer, a column per metric; the best that is no control, and what can't be told from it, in bold. */
  function overview(rankings) {
    const rows = new Map();
    rankings.forEach((one, column) => one.rows.forEach((row, index) => {
      if (!rows.has(row.e)) rows.set(row.e, { e: row.e, c: row.c, cells: [] });
      const best = one.rows.findIndex((other) => !other.c && known(other.v));
      const bold = !row.c && best >= 0 && (index === best || one.rows[best].s.includes(index));
      rows.get(row.e).cells[column] = { row, bold };
    }));
    const columns = [
      { key: "explainer", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {}, breakable(row.e), row.c ? el("span", { class: "badge", text: "control" }) : "") },
      ...rankings.map((one, column) => ({
        key: `metric-${column}`, title: one.metric + (one.subject === "self" ? " (own model)" : ""), numeric: true, descending: one.higher, hint: `${one.higher ? "higher" : "lower"} is better; card ${one.card.slice(0, 8)}`,
        value: (row) => (row.cells[column] ? row.cells[column].row.v : null),
        cell: (row) => {
          const found = row.cells[column];
          if (!found) return "–";
          return el("span", { class: "cell", title: interval(found.row.lo, found.row.hi) }, found.bold ? el("strong", { text: number(found.row.v) }) : number(found.row.v), el("small", { text: ` ${ranks(found.row)}` }));
        },
      })),
    ];
    const host = el("div");
    create(host, {
      caption: el("span", {}, el("strong", { text: ALL }), ` ${view.sign} maps; the small number is the rank. Bold: the best explainer and those that can’t be told from it.`),
      columns, rows: [...rows.values()].filter((row) => shown(row.e, row.c)), sort: view.sort && columns.some((column) => column.key === view.sort.key) ? view.sort : null,
      rowClass: (row) => (row.c ? "control" : null), onSort: (sort) => { view.sort = sort; keep(); },
    });
    const tex = current().overviews[view.sign];
    return [host, downloads({ tex }) || ""];
  }

  function missing() {
    const found = place.missing.filter((one) => chosen(one) && shown(one.e, false));
    return found.length ? [el("details", {}, el("summary", { text: `${found.length} without a value` }), el("ul", {}, ...found.map((one) => el("li", { text: `${one.e} (${one.metric}, ${one.sign}), ${one.status}: ${one.why}` }))))] : [];
  }

  // --- curves, agreement, cost --------------------------------------------------------------------------------------

  function drawCurves() {
    const found = place.curves.filter(chosen);
    at("curves-body").replaceChildren(...(found.length ? found.map((one) => el("div", {}, el("h3", { text: one.metric }), xbenchCharts.curves(one, (series) => shown(series.e, series.c)), downloads(one.files)))
      : [el("p", { class: "note", text: `${view.metric} has no curves in ${report.places.length ? "these runs" : "this run"}.` })]));
  }

  function drawAgreement() {
    const found = place.agreements.filter((one) => one.sign === view.sign);
    const host = at("agreement-body");
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
      return el("div", {}, xbenchCharts.heat(one), one.pairs.length > 12 ? el("details", {}, el("summary", { text: `All ${one.pairs.length} pairs` }), box) : box, downloads(one.files));
    }));
  }

  function drawCost() {
    const rows = place.cost.filter((row) => shown(row.e, row.c)), host = el("div");
    const seconds = (key, title, hint) => ({ key, title, hint, numeric: true, value: (row) => row[key], cell: (row) => (known(row[key]) ? row[key].toFixed(1) : "–") });
    const count = (key, title, hint, scale = 1) => ({ key, title, hint, numeric: true, narrow: true, value: (row) => row[key] ?? null, cell: (row) => (known(row[key]) ? Math.round(row[key] / scale).toLocaleString("en") : "–") });
    create(host, { caption: "Seconds on the machine named below, and images passed through the classifier for the maps of the whole split", rows, rowClass: (row) => (row.c ? "control" : null), columns: [
      { key: "e", title: "explainer", header: true, value: (row) => row.e, cell: (row) => el("span", {}, breakable(row.e), row.c ? el("span", { class: "badge", text: "control" }) : "") },
      seconds("fit", "training, s", "once per model"), seconds("maps", "maps, s", "of the whole split"), seconds("metrics", "metrics, s", "all metrics and signs"),
      count("forward", "forward passes", "images"), count("backward", "backward passes", "images"), count("bytes", "peak MiB", "of the process or the device", 1048576),
    ] });
    at("cost-body").replaceChildren(host);
  }

  // --- gallery and counterfactuals, loaded when they come near ------------------------------------------------------

  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    near.unobserve(entry.target);
    entry.target.dispatchEvent(new Event("near"));
  }), { rootMargin: "600px" });

  /* One of several files of a section: a select where there is a choice; each is loaded when the section comes near. */
  function section(host, found, label, open) {
    if (!host) return;
    near.unobserve(host);
    const body = el("div", { class: "loading" }, el("p", { class: "note", text: found.length ? "Loading …" : "These runs left none for this dataset and model." }));
    const select = el("select", { on: { change: () => change() } });
    choose(select, found.map((one, index) => [String(index), label(one)]), "0");
    const fresh = host.cloneNode(false);
    fresh.append(found.length > 1 ? el("div", { class: "fields" }, el("label", {}, el("span", { text: "Of" }), select)) : "", body);
    host.replaceWith(fresh);
    const change = async () => {
      try {
        await open(body, await load(found[Number(select.value)].script));
      } catch (error) {
        body.replaceChildren(el("p", { class: "warning", text: `${error.message}: keep the report's folder together` }));
      }
    };
    if (!found.length) return;
    fresh.addEventListener("near", change, { once: true });
    near.observe(fresh);
  }

  const here = (one) => one.dataset === view.dataset && one.model === view.model;

  function openGallery() {
    gallery = null;
    section(at("gallery-body"), report.galleries.filter(here), (one) => one.run, async (body, data) => {
      gallery = await xbenchGallery.show(body, data, report.ramps, view.gallery, { query: view.query, controls: view.controls }, () => keep());
    });
  }

  function openStrips() {
    const several = new Set(report.strips.map((one) => one.run)).size > 1;
    section(at("strips-body"), report.strips.filter(here), (one) => one.explainer + (several ? `, ${one.run}` : ""), (body, data) => xbenchStrips.show(body, data, report.ramps));
  }

  return { arrive };
})();

const xbenchData = (name, data) => xbenchPage.arrive(name, data);
