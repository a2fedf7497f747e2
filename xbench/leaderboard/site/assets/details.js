/* details.js: all that is known of one row, and the command that repeats it, in a dialog.

     xbenchDetails.listen(dialog, closed)                        once; `closed` is called when it was closed
     xbenchDetails.show(dialog, {ranking, row, place, suite})    fill it and open it */
"use strict";

const xbenchDetails = (() => {
  const { el, number, interval, ranks, badges, known } = xbenchTable;

  function listen(dialog, closed) {
    dialog.addEventListener("close", closed);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }

  async function copy(text, code, said) {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "copied";
    } catch {
      // Neither every browser nor http:// gives a page the clipboard: leave it selected, one key away.
      getSelection().selectAllChildren(code);
      said.textContent = "selected: press Ctrl+C";
    }
  }

  function command(text) {
    const code = el("code", { text }), said = el("span", { class: "note", role: "status" });
    const button = el("button", { type: "button", class: "button", id: "copy", text: "Copy", on: { click: () => copy(text, code, said) } });
    return [el("pre", { tabindex: "0", "aria-label": "command" }, code), el("p", {}, button, " ", said)];
  }

  function submission(run) {
    const links = [["report", run.report], ["gallery", run.gallery]].filter(([, path]) => path).flatMap(([words, path]) => [", ", el("a", { href: path, text: words })]);
    return el("li", {}, `${run.submitter}, ${run.submitted.slice(0, 10)}, seed ${run.seed}, ${run.computed}: `, el("code", { text: run.name }), ...links, run.note ? el("div", { class: "note", text: run.note }) : "");
  }

  function facts(ranking, row, place) {
    const others = row.s.map((index) => ranking.rows[index].e);
    return Object.entries({
      value: `${number(row.v)} ${interval(row.lo, row.hi)}`, "sd over seeds": known(row.sd) ? number(row.sd) : "", rank: ranks(row),
      "can’t be told apart from": others.join(", ") || "nothing", "same maps as": row.same || "",
      scored: `${row.n} samples of ${row.g} patients, ${ranking.split} split of ${place.dataset}`, seconds: known(row.t) ? `${number(row.t)} a seed` : "",
      warning: row.w || "", card: ranking.card, fingerprints: row.f.join(", "),
    }).filter(([, text]) => text).flatMap(([name, text]) => [el("dt", { text: name }), el("dd", { class: name === "warning" ? "warning" : null, text })]);
  }

  function show(dialog, { ranking, row, place, suite }) {
    const origin = suite.origins[row.o];
    dialog.replaceChildren(
      el("button", { type: "button", class: "button close", text: "Close", on: { click: () => dialog.close() } }),
      el("h2", { id: "details-title", text: row.e }, ...badges(row)),
      el("p", { class: "note", text: `${xbenchRankings.title(ranking)}, ${ranking.sign} maps, ${place.dataset} / ${place.model}` }),
      el("h3", { text: origin.runs.length > 1 ? "The commands that reproduce it" : "The command that reproduces it" }), ...command(origin.command),
      el("dl", { class: "facts" }, ...facts(ranking, row, place)),
      el("h3", { text: "Submissions" }), el("ul", {}, ...origin.runs.map((run) => submission(suite.runs[run]))),
    );
    if (!dialog.open) dialog.showModal();
  }

  return { listen, show };
})();
