/* maps.js: pictures out of PNG sheets, maps laid over them, the expert's outline as a line. */
"use strict";

const xbenchMaps = (() => {
  const { el, svg } = xbenchTable;

  /* The pixels of a sheet of pictures one below the other: Uint8ClampedArray RGBA, or null where it can't be read. */
  async function pixels(uri) {
    const image = new Image();
    image.src = uri;
    await image.decode();
    const canvas = el("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height).data;
  }

  /* Picture `at` of a sheet, as RGBA. */
  const tile = (sheet, at, height, width) => sheet.subarray(at * height * width * 4, (at + 1) * height * width * 4);

  function paint(canvas, rgba, height, width) {
    canvas.width = width;
    canvas.height = height;
    const data = new ImageData(new Uint8ClampedArray(rgba), width, height);
    canvas.getContext("2d").putImageData(data, 0, 0);
  }

  /* A map (grey sheet, 128 is zero) over the grey image: more opaque where it is larger. */
  function overlay(canvas, picture, [height, width], map, [mapHeight, mapWidth], ramps, { signed, absolute, opacity }) {
    const out = new Uint8ClampedArray(height * width * 4);
    const ramp = signed && !absolute ? ramps.signed : ramps.unsigned;
    for (let row = 0; row < height; row++) {
      const mapRow = Math.min(mapHeight - 1, Math.floor((row * mapHeight) / height));
      for (let column = 0; column < width; column++) {
        const at = 4 * (row * width + column);
        const mapColumn = Math.min(mapWidth - 1, Math.floor((column * mapWidth) / width));
        let value = map[4 * (mapRow * mapWidth + mapColumn)] - 128; // -127 ... 127
        if (absolute || !signed) value = Math.abs(value);
        const share = opacity * Math.pow(Math.abs(value) / 127, 0.75);
        const grey = (picture[at] + picture[at + 1] + picture[at + 2]) / 3;
        const colour = ramp[value + 127];
        for (let band = 0; band < 3; band++) out[at + band] = (1 - share) * grey + share * colour[band];
        out[at + 3] = 255;
      }
    }
    paint(canvas, out, height, width);
  }

  /* The border of a mask as one SVG path along the edges of pixels. */
  function outline(mask, height, width) {
    const inside = (row, column) => row >= 0 && row < height && column >= 0 && column < width && mask[4 * (row * width + column)] > 127;
    const steps = [];
    for (let row = 0; row <= height; row++) {
      for (let column = 0; column <= width; column++) {
        if (inside(row, column) !== inside(row - 1, column)) steps.push(`M${column} ${row}h1`);
        if (inside(row, column) !== inside(row, column - 1)) steps.push(`M${column} ${row}v1`);
      }
    }
    return steps.join("");
  }

  /* A picture with room for an outline over it. */
  function frame(height, width, label) {
    const canvas = el("canvas", { width, height, role: "img", "aria-label": label });
    const path = svg("path", { class: "outline", d: "" });
    const line = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, path);
    const node = el("div", { class: "picture" }, canvas, line);
    node.style.aspectRatio = `${width} / ${height}`;
    return { node, canvas, path };
  }

  return { pixels, tile, paint, overlay, outline, frame };
})();
