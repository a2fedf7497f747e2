/* site.js: what the reader chose, kept in the URL's fragment, and the page of a suite's version that follows from it.

   Loaded after details.js, rankings.js and compare.js, before the data: data/<suite>/suite.js and, as they are asked for,
   data/<suite>/place-<n>-rankings.js and -differences.js, which call xbenchData(name, data).

     suite      {places: [{dataset, model, path}], runs: [submission], origins: [{runs: [positions], command}]}
     rankings   [{metric, apart, sign, subject, target, split, card, higher, rows: [row, best first]}]
     a row      e explainer, v value, lo hi 95 % interval, sd over seeds, r [best, worst rank], s rows it can't be told
                from, n samples, g patients, t seconds, o its origin, f fingerprints, c control, same twin, w warning
     differences  of every ranking: {who, value, half, p, paired}; see compare.js */
"use strict";

const xbenchSite = (() => {
  const { el, matches, choose, state } = xbenchTable;
  const at = (id) => document.getElementById(id);
  const unique = (values) => [...new Set(values)];
  const alphabetic = (one, other) => one.localeCompare(other, "en", { numeric: true });
  const family = (name) => name.split(/:| \(/)[0]; // of "vinet:preset=paper" and of "gradient (cuda, tf32)"
  const arrived = new Map(), waiting = new Map();
  const usual = {}; // what is chosen where the reader chose nothing: not worth a word in the address
  let suite, view, place;

  // --- data: file:// lets a page load scripts, but not fetch ---------------------------------------------------------

  function arrive(name, data) {
    arrived.set(name, data);
    if (name === "suite") start(data);
    else if (waiting.has(name)) waiting.get(name)(data);
  }

  function load(path) {
    const name = path.split("/").pop();
    if (arrived.has(name)) return Promise.resolve(arrived.get(name));
    return new Promise((done, fail) => {
      waiting.set(name, done);
      document.head.append(el("script", { src: `${path}.js`, on: { error: () => fail(new Error(`${path}.js is missing: keep the folder together`)) } }));
    });
  }

  const complaint = (error) => el("p", { class: "warning", text: error.message });

  // --- what is chosen ------------------------------------------------------------------------------------------------

  const sorting = (text) => (text ? { key: text.replace(/^-/, ""), descending: text.startsWith("-") } : null);
  const sorted = (sort) => (sort ? (sort.descending ? "-" : "") + sort.key : "");

  function recall() {
    const saved = state.read();
    return {
      dataset: saved.dataset, model: saved.model, sign: saved.sign, metric: saved.metric, family: saved.explainer || "", query: saved.q || "",
      controls: saved.controls !== "no", overview: sorting(saved.sort), ranking: sorting(saved.by), first: saved.a, second: saved.b, row: saved.row || "", apart: saved.apart || "",
    };
  }

  function remembered() {
    const chosen = (name) => (view[name] === usual[name] ? "" : view[name]);
    return {
      dataset: chosen("dataset"), model: chosen("model"), sign: chosen("sign"), metric: chosen("metric"), explainer: view.family, q: view.query, controls: view.controls ? "" : "no",
      sort: sorted(view.overview), by: sorted(view.ranking), a: chosen("first"), b: chosen("second"), row: view.row, apart: view.apart,
    };
  }

  const keep = () => state.write(remembered());

  /* The address of a row as it is shown now. */
  function address(ranking, row) {
    const values = Object.entries({ ...remembered(), metric: ranking.metric, row: row.e, apart: ranking.apart }).filter(([, value]) => value);
    return `#${new URLSearchParams(values)}`;
  }

  function start(data) {
    suite = data;
    Object.assign(usual, { dataset: suite.places[0]?.dataset, model: suite.places[0]?.model });
    if (!suite.places.length) return say(el("p", { class: "note", text: "No cell of this suite has a value." }));
    const on = (id, kind, change) => at(id).addEventListener(kind, () => { change(at(id)); });
    on("dataset", "change", (select) => { view.dataset = select.value; moved(); });
    on("model", "change", (select) => { view.model = select.value; moved(); });
    on("family", "change", (select) => { view.family = select.value; filtered(); });
    on("query", "input", (input) => { view.query = input.value; filtered(); });
    on("controls", "change", (input) => { view.controls = input.checked; filtered(); });
    on("metric", "change", (select) => { view.metric = select.value; view.ranking = null; keep(); drawRanking(); });
    on("first", "change", (select) => { view.first = select.value; keep(); drawCompare(); });
    on("second", "change", (select) => { view.second = select.value; keep(); drawCompare(); });
    on("swap", "click", () => { [view.first, view.second] = [view.second, view.first]; keep(); drawCompare(); });
    document.querySelector(".lens").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("click", state.jump);
    window.addEventListener("hashchange", restore);
    xbenchDetails.listen(at("details"), () => { view.row = view.apart = ""; keep(); });
    const section = location.hash.slice(1);
    restore();
    if (section && !section.includes("=") && at(section)) at(section).scrollIntoView();
  }

  /* What the fragment says, also after Back or a new address. */
  function restore() {
    const text = location.hash.slice(1);
    if (view && text && !text.includes("=")) return;
    view = recall();
    at("query").value = view.query;
    at("controls").checked = view.controls;
    moved();
  }

  const current = () => suite.places.find((one) => one.dataset === view.dataset && one.model === view.model);

  /* Another dataset or model: its rankings are loaded, and what is chosen is made to fit them. */
  async function moved() {
    const datasets = unique(suite.places.map((one) => one.dataset));
    if (!datasets.includes(view.dataset)) view.dataset = datasets[0];
    const models = suite.places.filter((one) => one.dataset === view.dataset).map((one) => one.model);
    if (!models.includes(view.model)) view.model = models[0];
    choose(at("dataset"), datasets, view.dataset);
    choose(at("model"), models, view.model);
    const here = current();
    at("overview-body").setAttribute("aria-busy", "true");
    try {
      const rankings = await load(`${here.path}-rankings`);
      if (here !== current()) return;
      place = { ...here, rankings };
    } catch (error) {
      return say(complaint(error));
    }
    offer();
    draw();
    if (view.row) openRow();
    else at("details").close();
  }

  /* Fill the other choices with what there is at this place. */
  function offer() {
    const signs = ["original", "absolute"].filter((sign) => place.rankings.some((one) => one.sign === sign));
    usual.sign = signs[0];
    if (!signs.includes(view.sign)) view.sign = usual.sign;
    at("sign").replaceChildren(...signs.map((sign) => {
      const input = el("input", { type: "radio", name: "sign", value: sign, on: { change: () => { view.sign = sign; offer(); draw(); } } });
      input.checked = sign === view.sign;
      return el("label", {}, input, el("span", { text: sign }));
    }));
    const names = unique(place.rankings.flatMap((one) => one.rows).map((row) => row.e)), families = unique(names.map(family)).sort(alphabetic);
    if (!families.includes(view.family)) view.family = "";
    choose(at("family"), [["", "all"], ...families], view.family);
    const metrics = unique(shownRankings().map((one) => one.metric));
    usual.metric = metrics[0];
    if (!metrics.includes(view.metric)) view.metric = usual.metric;
    choose(at("metric"), metrics, view.metric);
    offerPair();
  }

  /* Two explainers to compare: at first the two best of the first ranking that are no controls. */
  function offerPair() {
    const rows = shownRankings().flatMap((one) => one.rows), here = unique(rows.map((row) => row.e));
    const leading = unique([...rows.filter((row) => !row.c && !row.same).map((row) => row.e), ...here]);
    [usual.first, usual.second] = [leading[0], leading[1] ?? leading[0]];
    if (!here.includes(view.first)) view.first = view.second === usual.first ? usual.second : usual.first;
    if (!here.includes(view.second)) view.second = view.first === usual.second ? usual.first : usual.second;
    const ordered = [...here].sort(alphabetic);
    choose(at("first"), ordered, view.first);
    choose(at("second"), ordered, view.second);
  }

  // --- what is shown -------------------------------------------------------------------------------------------------

  const shownRankings = () => place.rankings.filter((one) => one.sign === view.sign);
  const submitters = (row) => unique(suite.origins[row.o].runs.map((run) => suite.runs[run].submitter));
  const shown = (row) => (view.controls || !row.c) && (!view.family || family(row.e) === view.family) && matches(`${row.e} ${submitters(row).join(" ")}`, view.query);

  function filtered() {
    keep();
    drawOverview();
    drawRanking();
  }

  function draw() {
    filtered();
    drawCompare();
    at("overview-body").setAttribute("aria-busy", "false");
  }

  function say(node) {
    at("overview-body").replaceChildren(node);
    at("overview-body").setAttribute("aria-busy", "false");
  }

  function drawOverview() {
    const all = unique(shownRankings().flatMap((one) => one.rows).map((row) => row.e));
    const kept = xbenchRankings.overview(at("overview-body"), shownRankings(), { shown, sign: view.sign, sort: view.overview, onSort: (sort) => { view.overview = sort; keep(); } });
    at("count").textContent = kept === all.length ? `${all.length} rows` : `${kept} of ${all.length} rows`;
  }

  function drawRanking() {
    const found = shownRankings().filter((one) => one.metric === view.metric);
    const parts = { shown, submitters, suite, sort: view.ranking, onSort: (sort) => { view.ranking = sort; keep(); }, address, open: show };
    at("ranking-body").replaceChildren(...found.map((one) => xbenchRankings.ranking(one, parts)));
  }

  /* The differences are large, so they are loaded when the reader comes near them. */
  const near = new IntersectionObserver((entries) => { if (entries.some((one) => one.isIntersecting)) compare(); }, { rootMargin: "600px" });

  function drawCompare() {
    at("first").value = view.first;
    at("second").value = view.second;
    near.unobserve(at("compare"));
    near.observe(at("compare"));
  }

  async function compare() {
    near.unobserve(at("compare"));
    const here = place, body = at("compare-body");
    try {
      const found = await load(`${here.path}-differences`);
      if (here !== place) return;
      const pairs = here.rankings.map((ranking, index) => ({ ranking, differences: found[index] })).filter((one) => one.ranking.sign === view.sign);
      xbenchCompare.show(body, pairs, view.first, view.second);
    } catch (error) {
      body.replaceChildren(complaint(error));
    }
  }

  function show(ranking, row) {
    view.row = row.e;
    view.apart = ranking.apart;
    view.metric = ranking.metric;
    keep();
    xbenchDetails.show(at("details"), { ranking, row, place, suite });
  }

  function openRow() {
    for (const ranking of shownRankings().filter((one) => one.metric === view.metric && one.apart === view.apart)) {
      const row = ranking.rows.find((one) => one.e === view.row);
      if (row) return show(ranking, row);
    }
    view.row = view.apart = "";
    return keep();
  }

  return { arrive };
})();

const xbenchData = (name, data) => xbenchSite.arrive(name, data);
