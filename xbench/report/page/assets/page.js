/* page.js: what the reader chose (kept in the URL's fragment), the data of it, and the panels that follow from both.

   The script of a panel calls, once:

     xbenchPage.panel(name, {read, kept, wait, fail, open, draw})

   Each of them may be left out. `data` is what the panel's of_place() gave for the dataset and model, or undefined.

     read(saved)   {key: text} of the address, before anything is drawn
     kept()        {key: text} for the address; empty texts are left out
     wait()        another dataset or model is on its way
     fail(error)   it can't be loaded
     open(data)    another dataset or model is there; draw follows
     draw(data)    the reader chose something

   It fills its own element, and uses of the page:

     view                  {dataset, model, metric, sign, query, controls}: what the reader chose; metric may be ALL
     body(name)            the element `<name>-body`
     data(name)            what the panel's section() gave its script
     ramps()               the colours of maps
     here(one)             whether one.dataset and one.model are chosen
     chosen(one)           whether one.metric and one.sign are
     shown(name, control)  whether the filter shows this explainer
     keep()                write the address anew, because kept() changed
     downloads(files)      a line of links to {kind: path}
     lazily(host, files, label, open)   one of several data files [{script, ...}], loaded when the reader comes near */
"use strict";

const xbenchPage = (() => {
  const { el, matches, choose, state } = xbenchTable;
  const waiting = new Map(), arrived = new Map(), panels = new Map();
  const ALL = "all metrics";
  const at = (id) => document.getElementById(id);
  const view = { dataset: "", model: "", metric: "", sign: "", query: "", controls: true };
  let report, place;

  const panel = (name, hooks) => panels.set(name, hooks);
  const tell = (hook, give = () => undefined) => panels.forEach((hooks, name) => hooks[hook] && hooks[hook](give(name)));

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

  const current = () => report.places.find(here);
  const here = (one) => one.dataset === view.dataset && one.model === view.model;
  const chosen = (one) => one.sign === view.sign && (view.metric === ALL || one.metric === view.metric);
  const shown = (name, control) => (view.controls || !control) && matches(name, view.query);
  const unique = (values) => [...new Set(values)];

  function start(data) {
    report = data;
    const saved = state.read();
    Object.assign(view, { dataset: saved.dataset, model: saved.model, metric: saved.metric, sign: saved.sign, query: saved.q || "", controls: saved.controls !== "no" });
    tell("read", () => saved);
    if (!report.places.length) return;
    at("dataset").addEventListener("change", () => { view.dataset = at("dataset").value; moved(); });
    at("model").addEventListener("change", () => { view.model = at("model").value; moved(); });
    at("metric").addEventListener("change", () => { view.metric = at("metric").value; draw(); });
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
    const first = report.places[0];
    const words = {
      dataset: view.dataset === first.dataset ? "" : view.dataset, model: view.model === first.model ? "" : view.model,
      metric: view.metric === first.metrics[0] ? "" : view.metric, sign: view.sign === first.signs[0] ? "" : view.sign, q: view.query,
      controls: view.controls ? "" : "no",
    };
    state.write(Object.assign(words, ...[...panels.values()].map((hooks) => (hooks.kept ? hooks.kept() : {}))));
  }

  async function moved() {
    const datasets = unique(report.places.map((one) => one.dataset));
    if (!datasets.includes(view.dataset)) view.dataset = datasets[0];
    const models = report.places.filter((one) => one.dataset === view.dataset).map((one) => one.model);
    if (!models.includes(view.model)) view.model = models[0];
    const found = current();
    const metrics = found.metrics.length > 1 ? [...found.metrics, ALL] : found.metrics;
    if (!metrics.includes(view.metric)) view.metric = metrics[0];
    if (!found.signs.includes(view.sign)) view.sign = found.signs[0];
    choose(at("dataset"), datasets, view.dataset);
    choose(at("model"), models, view.model);
    choose(at("metric"), metrics, view.metric);
    at("dataset-label").hidden = datasets.length < 2;
    at("model-label").hidden = models.length < 2;
    at("sign-fields").hidden = found.signs.length < 2;
    at("sign").replaceChildren(...found.signs.map((sign) => {
      const input = el("input", { type: "radio", name: "sign", value: sign, on: { change: () => { view.sign = sign; draw(); } } });
      input.checked = sign === view.sign;
      return el("label", {}, input, el("span", { text: sign }));
    }));
    tell("wait");
    try {
      place = await load(found.script);
    } catch (error) {
      tell("fail", () => new Error(`${error.message}: keep the report's folder together`));
      return;
    }
    if (found !== current()) return;
    tell("open", (name) => place[name]);
    draw();
  }

  function draw() {
    tell("draw", (name) => place[name]);
    keep();
  }

  // --- what panels share --------------------------------------------------------------------------------------------

  function downloads(files) {
    const links = Object.entries(files || {}).map(([kind, path]) => el("a", { href: path, download: true, text: kind.toUpperCase() }));
    return links.length ? el("p", { class: "files no-print" }, "Download: ", ...links) : null;
  }

  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    near.unobserve(entry.target);
    entry.target.dispatchEvent(new Event("near"));
  }), { rootMargin: "600px" });

  /* A select where there is a choice between files; each is loaded when its section comes near. */
  function lazily(host, found, label, open) {
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

  return {
    ALL, view, panel, arrive, here, chosen, shown, keep, downloads, lazily,
    body: (name) => at(`${name}-body`), data: (name) => report.panels[name], ramps: () => report.ramps,
  };
})();

const xbenchData = (name, data) => xbenchPage.arrive(name, data);
