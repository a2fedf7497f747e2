/* Leaf through samples: the image, the expert's outline, and every explainer's map. */
"use strict";

(() => {
  const { el, known, choose, breakable } = xbenchTable;
  const { pixels, tile, paint, overlay, outline, frame } = xbenchMaps;
  const { body, data, ramps, here, shown, keep, lazily } = xbenchPage;
  const ORDERS = { hardest: "hardest first", surest: "best first", stored: "by class" };

  /* Everything decoded once: the pictures of all samples, and each explainer's maps on first use. */
  async function decoded(data) {
    const [images, masks] = await Promise.all([pixels(data.images), pixels(data.masks)]);
    const sheets = new Map();
    const maps = (one) => {
      if (!sheets.has(one.name)) sheets.set(one.name, pixels(one.maps));
      return sheets.get(one.name);
    };
    return { images, masks, maps };
  }

  function order(data, kind) {
    const places = data.ids.map((_, at) => at);
    if (kind === "stored") return places;
    const chance = (at) => data.probabilities[at][data.labels[at]];
    return places.sort((one, other) => (kind === "surest" ? chance(other) - chance(one) : chance(one) - chance(other)));
  }

  function verdict(data, at) {
    const chances = data.probabilities[at];
    const predicted = chances.indexOf(Math.max(...chances));
    return { truth: data.classes[data.labels[at]], predicted: data.classes[predicted], chance: chances[predicted], right: predicted === data.labels[at] };
  }

  /* host: where; data: of a gallery; ramps: colours; view: {order, case, opacity, absolute, outline}. */
  async function show(host, data, ramps, view) {
    const sheets = await decoded(data);
    const size = [data.height, data.width], mapSize = [data.map_height, data.map_width];
    let places = order(data, view.order), at = Math.max(0, places.indexOf(data.ids.indexOf(view.case)));
    let run = 0;

    const chosen = el("select", { "aria-label": "Order of the cases", on: { change: () => { view.order = chosen.value; places = order(data, view.order); at = 0; strip(); draw(); } } });
    choose(chosen, Object.entries(ORDERS), view.order);
    const slider = el("input", { type: "range", min: 0, max: 100, step: 1, value: Math.round(100 * view.opacity), "aria-label": "Opacity of the maps", on: { input: () => { view.opacity = slider.value / 100; draw(); } } });
    const amount = el("output", { class: "amount" });
    const absolute = el("input", { type: "checkbox", on: { change: () => { view.absolute = absolute.checked; draw(); } } });
    const outlined = el("input", { type: "checkbox", on: { change: () => { view.outline = outlined.checked; draw(); } } });
    absolute.checked = view.absolute;
    outlined.checked = view.outline;

    const previous = el("button", { type: "button", class: "button", "aria-label": "Previous case", text: "←", on: { click: () => turn(-1) } });
    const next = el("button", { type: "button", class: "button", "aria-label": "Next case", text: "→", on: { click: () => turn(1) } });
    const words = el("p", { class: "case", "aria-live": "polite" });
    const plain = frame(...size, ""), marked = frame(...size, "");
    const tiles = el("div", { class: "tiles" });
    const film = el("div", { class: "film", role: "group", "aria-label": "Cases" });
    const scale = el("div", { class: "scales" }, ...scales(ramps, data));
    const box = el("div", { class: "gallery", tabindex: 0, role: "group", "aria-label": "Gallery; left and right arrows turn the cases", on: { keydown: keys } },
      el("div", { class: "fields tools" }, el("div", { class: "turn" }, previous, next),
        el("label", {}, el("span", { text: "Cases" }), chosen), el("label", { class: "slider" }, el("span", {}, "Opacity ", amount), slider),
        el("label", { class: "check" }, absolute, "absolute values"), el("label", { class: "check" }, outlined, "outline")),
      words, film, tiles, scale);
    host.replaceChildren(box);

    function keys(event) {
      if (event.target.matches("input, select") || event.altKey || event.ctrlKey || event.metaKey) return;
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step && event.key !== "Home" && event.key !== "End") return;
      event.preventDefault();
      turn(step || (event.key === "Home" ? -at : places.length - 1 - at));
    }

    function turn(step) {
      at = Math.min(places.length - 1, Math.max(0, at + step));
      draw();
    }

    function strip() {
      film.replaceChildren(...places.map((place, position) => {
        const canvas = el("canvas", { "aria-hidden": "true" });
        paint(canvas, tile(sheets.images, place, ...size), ...size);
        const { truth, right } = verdict(data, place);
        return el("button", { type: "button", class: right ? "" : "wrong", "aria-label": `Case ${position + 1}: ${truth}${right ? "" : ", predicted wrongly"}`, on: { click: () => { at = position; draw(); } } }, canvas);
      }));
    }

    async function draw() {
      const mine = ++run, place = places[at];
      view.case = data.ids[place];
      keep();
      amount.textContent = `${Math.round(100 * view.opacity)} %`;
      const { truth, predicted, chance, right } = verdict(data, place);
      words.replaceChildren(el("strong", { text: truth }), ` · predicted ${predicted} ${chance.toFixed(2)}`, right ? "" : el("span", { class: "warning", text: "wrong" }),
        el("span", { class: "soft", text: `case ${at + 1} of ${places.length} · ${data.ids[place]}` }));
      previous.disabled = at === 0;
      next.disabled = at === places.length - 1;
      [...film.children].forEach((one, position) => one.setAttribute("aria-current", position === at));
      const line = data.has_mask[place] ? outline(tile(sheets.masks, place, ...size), ...size) : "";
      const picture = tile(sheets.images, place, ...size);
      for (const one of [plain, marked]) paint(one.canvas, picture, ...size);
      plain.canvas.setAttribute("aria-label", `Image ${data.ids[place]}`);
      marked.canvas.setAttribute("aria-label", line ? `Image ${data.ids[place]} with the expert's outline` : "No expert outlined this image");
      marked.path.setAttribute("d", line);
      const fit = data.explainers.filter((one) => shown(one.name, one.control));
      const maps = await Promise.all(fit.map(sheets.maps));
      if (mine !== run) return;
      tiles.replaceChildren(figure(plain, "image"), figure(marked, line ? "expert’s outline" : "no outline"), ...fit.map((one, index) => {
        const made = frame(...size, "");
        const kind = one.signed && !view.absolute ? "signed map" : "map";
        made.canvas.setAttribute("aria-label", `${kind} of ${one.name} for ${data.classes[one.targets[place]] || "the target"}`);
        const map = tile(maps[index], place, ...mapSize);
        overlay(made.canvas, picture, size, map, mapSize, ramps, { signed: one.signed, absolute: view.absolute, opacity: view.opacity * ramps.opacity });
        if (view.outline) made.path.setAttribute("d", line);
        return figure(made, one.name, one.control);
      }));
    }

    strip();
    await draw();
    return { redraw: draw };
  }

  const figure = (made, name, control) => el("figure", { class: control ? "tile control" : "tile" }, made.node, el("figcaption", {}, breakable(name)));

  /* What the colours mean, as they look over mid-grey tissue. */
  function scales(ramps, data) {
    const bar = (ramp, from) => {
      const stops = ramp.slice(from).filter((_, at) => at % 16 === 0).map((colour, at, all) => {
        const share = Math.abs((from + at * 16 - 127) / 127), cover = ramps.opacity * Math.pow(share, 0.75);
        const mixed = colour.map((band) => Math.round((1 - cover) * 115 + cover * band));
        return `rgb(${mixed.join(",")}) ${Math.round((100 * at) / (all.length - 1))}%`;
      });
      const node = el("span", { class: "ramp" });
      node.style.background = `linear-gradient(to right, ${stops.join(",")})`;
      return node;
    };
    const kinds = [];
    if (data.explainers.some((one) => one.signed)) kinds.push(el("p", { class: "note" }, "against the target ", bar(ramps.signed, 0), " for the target"));
    kinds.push(el("p", { class: "note" }, "none ", bar(ramps.unsigned, 127), " most (unsigned or absolute)"));
    kinds.push(el("p", { class: "note", text: "Each map is scaled to the 99th percentile of its absolute values." }));
    return kinds;
  }

  let drawn = null, view;

  xbenchPage.panel("gallery", {
    read(saved) {
      const opacity = known(saved.opacity) ? Math.min(1, Math.max(0, Number(saved.opacity) || 0)) : 1;
      view = { order: saved.order || "hardest", case: saved.case, opacity, absolute: saved.absolute === "yes", outline: saved.outline !== "no" };
    },
    kept: () => ({
      order: view.order === "hardest" ? "" : view.order, case: view.case,
      opacity: view.opacity === 1 ? "" : view.opacity, absolute: view.absolute ? "yes" : "", outline: view.outline ? "" : "no",
    }),
    open() {
      drawn = null;
      lazily(body("gallery"), data("gallery").filter(here), (one) => one.run, async (host, found) => {
        drawn = await show(host, found, ramps(), view);
      });
    },
    draw() { if (drawn) drawn.redraw(); },
  });
})();
