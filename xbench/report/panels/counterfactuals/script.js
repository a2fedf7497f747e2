/* Slide from an image to its counterfactual, with what the classifier says of each frame. */
"use strict";

(() => {
  const { el, choose } = xbenchTable;
  const { body, data, ramps, here, lazily } = xbenchPage;
  const { pixels, tile, paint, overlay, frame } = xbenchMaps;

  async function show(host, data, ramps) {
    const size = [data.height, data.width], steps = data.t.length, two = data.strips === 1;
    const maps = data.maps ? await pixels(data.maps) : null;
    let at = 0, strip = 0, run = 0;

    const picture = frame(...size, ""), original = frame(...size, ""), change = frame(...size, ""), map = frame(...size, "");
    const slider = el("input", { type: "range", min: 0, max: steps - 1, step: 1, value: data.start, "aria-label": "From class to class", on: { input: () => draw() } });
    const cases = el("select", { on: { change: () => { at = Number(cases.value); slider.value = data.start; draw(); } } });
    choose(cases, data.ids.map((id, index) => [String(index), `${data.classes[data.labels[index]]} · ${id}`]), "0");
    const aims = el("select", { on: { change: () => { strip = Number(aims.value); draw(); } } });
    choose(aims, data.classes.map((name, index) => [String(index), name]), "0");
    const ends = el("div", { class: "ends" }, el("span", { text: two ? `← ${data.classes[0]}` : "image" }), el("span", { text: "image" }), el("span", { text: two ? `${data.classes[1]} →` : "" }));
    if (!two) ends.children[1].textContent = "";
    const bars = el("dl", { class: "chances", "aria-live": "polite" });

    const part = (made, words) => el("figure", { class: "tile" }, made.node, el("figcaption", { text: words }));
    host.replaceChildren(el("div", { class: "strips" },
      el("div", { class: "fields tools" }, el("label", {}, el("span", { text: "Image" }), cases), two ? null : el("label", {}, el("span", { text: "Toward" }), aims)),
      el("div", { class: "travel" }, el("div", { class: "tiles" }, part(original, "image"), part(picture, "on the way"), part(change, "change: red brighter, blue darker"), maps ? part(map, `map of ${data.explainer}`) : null),
        el("label", { class: "slider" }, el("span", { class: "visually-hidden", text: "From class to class" }), slider), ends, bars)));

    async function draw() {
      const mine = ++run, step = Number(slider.value), place = strip * steps + step;
      const sheet = await pixels(data.frames[at]);
      if (mine !== run) return;
      const now = tile(sheet, place, ...size), first = tile(sheet, strip * steps + data.start, ...size);
      paint(original.canvas, first, ...size);
      paint(picture.canvas, now, ...size);
      // The difference on a scale of its own kind: 128 is none, half the range of an image is the most.
      const difference = new Uint8ClampedArray(now.length);
      for (let index = 0; index < now.length; index += 4) {
        const by = now[index] + now[index + 1] + now[index + 2] - first[index] - first[index + 1] - first[index + 2];
        difference[index] = 128 + Math.max(-127, Math.min(127, (2 * by) / 3));
      }
      overlay(change.canvas, first, size, difference, size, ramps, { signed: true, absolute: false, opacity: ramps.opacity });
      if (maps) overlay(map.canvas, first, size, tile(maps, at, data.map_height, data.map_width), [data.map_height, data.map_width], ramps, { signed: true, absolute: false, opacity: ramps.opacity });
      const chances = data.probabilities[at][strip][step];
      bars.replaceChildren(...data.classes.flatMap((name, index) => {
        const meter = el("span", { class: "meter", "aria-hidden": "true" });
        meter.style.setProperty("--share", `${100 * chances[index]}%`);
        return [el("dt", { text: name }), el("dd", {}, meter, chances[index].toFixed(2))];
      }));
      const words = `t = ${data.t[step]}: ${data.classes.map((name, index) => `${name} ${chances[index].toFixed(2)}`).join(", ")}`;
      slider.setAttribute("aria-valuetext", words);
      original.canvas.setAttribute("aria-label", `Image ${data.ids[at]}`);
      picture.canvas.setAttribute("aria-label", `Counterfactual of ${data.ids[at]}, ${words}`);
      change.canvas.setAttribute("aria-label", "What was changed");
      map.canvas.setAttribute("aria-label", `Map of ${data.explainer}`);
    }
    await draw();
  }

  xbenchPage.panel("counterfactuals", {
    open() {
      const files = data("counterfactuals"), several = new Set(files.map((one) => one.run)).size > 1;
      const label = (one) => one.explainer + (several ? `, ${one.run}` : "");
      lazily(body("counterfactuals"), files.filter(here), label, (host, found) => show(host, found, ramps()));
    },
  });
})();
