// Two universes, mixed channel by channel: which channel is for which scale?
// @ts-check
import {
  choice, colourBar, figureOf, figures, floats, framed, make, newest, picture, plot,
  progressBar, push, words,
} from "./figure.js";
import { crossCorrelation, drawField, meanBetween, selectivity, wavenumbers } from "./maths.js";

const MEGABYTE = 1e6;

/** Two digits, and no minus before a zero. @param {number} v */
const decimal = v => (Math.round(100 * v) / 100 || 0).toFixed(2).replace("-", "−");

figures.scales = {
  needs: ["decoder"],
  later: ["sorted"],
  build({ about, model, sorted, load, report }) {
    const channels = about.field[0], cells = about.field[1] * about.field[2];
    const k = wavenumbers(about.side, about.box);
    // A field has room for as many waves as it has numbers. They fill a disc in the plane
    // of waves, and this is its radius.
    const most = 2 * Math.PI / about.box * Math.sqrt(channels * cells / Math.PI);
    const held = k.filter(v => v < most).length;
    const maps = ["A", "mixture", "B"].map(() => picture({ side: about.side }));
    const alike = plot({
      k, y: "r(k): 1 where the waves are the same", range: [-0.2, 1], log: false,
      ticks: [0, 0.5, 1],
      names: { a: "mixture and A", b: "mixture and B", before: "A and B" },
    });
    const told = words(), bar = progressBar("the second model");
    let seed = 1, noise = floats(about.starts.scales[0].noise);
    let fromB = new Array(channels).fill(0), name = "mixed";

    const mixed = {
      prior: about.prior, fields: about.starts.scales.map(start => start.field),
      decode: (/** @type {Float32Array} */ field) => model.decode(field, noise),
    };
    // The second model draws in several steps. It is loaded when a reader first chooses it.
    const second = sorted && about.sorted ? {
      prior: about.sorted.prior, fields: about.sorted.fields,
      async decode(/** @type {Float32Array} */ field) {
        const steps = about.sorted?.steps ?? 1;
        const found = await sorted.flow(field, noise, steps, bar.show, "sorted");
        if (!found) throw new Error("another flow came first");
        return sorted.log(found.states.slice(-noise.length));
      },
    } : mixed;
    /** @type {Record<string, typeof mixed>} */
    const kinds = { mixed, sorted: second };
    const start = () => kinds[name].fields.map(field => Float32Array.from(field));
    let fields = start();
    /** The maps of both fields. @type {{of?: typeof fields, ends: Float32Array[]}} */
    let decoded = { ends: [] };

    const draw = newest(async () => {
      const { decode } = kinds[name], of = fields, [a, b] = of, chosen = [...fromB];
      if (decoded.of !== of) decoded = { of, ends: [await decode(a), await decode(b)] };
      const { ends } = decoded, [one, other] = ends, now = a.map((v, i) => chosen[Math.floor(i / cells)] ? b[i] : v);
      const log = await decode(now), r = ends.map(end => crossCorrelation(log, end));
      maps[0].show(one, "Universe A.");
      maps[1].show(log, "A universe with some channels from A and some from B.");
      maps[2].show(other, "Universe B.");
      alike.draw("a", r[0]);
      alike.draw("b", r[1]);
      alike.draw("before", crossCorrelation(one, other));
      const exchanged = chosen.map((v, c) => v ? c : -1).filter(c => c >= 0);
      // What the exchanged channels change is what is no longer A's, and the others' the same.
      const both = exchanged.length && exchanged.length < channels;
      const [yours, others] = r.map(curve => curve.slice(0, held).map(v => 1 - v));
      const score = both ? selectivity(yours, others) : null;
      const large = meanBetween(k, r[1], 0, 1), fine = meanBetween(k, r[1], 3, 9);
      const says = `${exchanged.length ? `From B: channels ${exchanged.join(", ")}` : "All channels are from A"}. ` +
        `Likeness to B: ${decimal(large)} on large scales (k < 1), ${decimal(fine)} on fine ones (k > 3).` +
        (score === null ? "" : ` Score: ${score.toFixed(2)}.`);
      alike.describe(`How alike the mixture and the two universes are. ${says}`);
      told.say(says);
      report({ field: now, noise, log, r, k, ends, score, held, name });
    });
    const switches = fromB.map((_, c) => make("button", {
      type: "button", class: "cf-switch", "aria-pressed": "false",
      "aria-label": `channel ${c} from B`,
      onclick: () => choose(i => i === c ? 1 - fromB[c] : fromB[i]),
    }, make("b", {}, String(c)), make("span", {}, "A"), make("span", {}, "B")));
    const choose = (/** @type {(c: number) => number | boolean} */ rule) => {
      fromB = fromB.map((_, c) => Number(rule(c)));
      switches.forEach((button, c) => button.setAttribute("aria-pressed", String(Boolean(fromB[c]))));
      return draw();
    };
    const firstHalf = () => choose(c => c < channels / 2);
    const size = (about.bytes[about.models.sorted] ?? 0) / MEGABYTE;
    const chosen = choice("model", {
      mixed: "mini-fast: channels as training left them",
      sorted: `mini-scales: sorted by scale${size ? ` (${size.toFixed(0)} MB more)` : ""}`,
    }, name, async value => {
      if (value === "sorted") await load("sorted", bar.show);
      bar.show(1);
      name = value;
      fields = start();
      draw();
    });
    const element = figureOf("scales", "Which channel for which scale?",
      make("div", { class: "cf-panels cf-three cf-maps" }, ...maps.map((map, i) =>
        framed(["A", "the mixture", "B"][i], map.element, about.box))),
      colourBar(),
      make("div", { class: "cf-switches", role: "group", "aria-label": "each channel from A or B" }, ...switches),
      make("div", { class: "cf-buttons" },
        push("All from A", () => choose(() => false)), push("First half from B", firstHalf),
        push("Last half from B", () => choose(c => c >= channels / 2)),
        push("Two other universes", () => {
          fields = [0, 1].map(() => drawField(kinds[name].prior, about.field, 2 * ++seed + 1));
          draw();
        }), ...second === mixed ? [] : [chosen, bar.element]),
      make("div", { class: "cf-under" }, alike.element, make("div", {}, told.element,
        make("p", { class: "cf-note" }, "The score compares what your channels move with what the others move, " +
          `on the scales that a field can hold (k < ${most.toFixed(1)}). It is 0 if both move the same scales, and 1 if they share none.`))));
    return { element, ready: draw(), reveal: firstHalf };
  },
};
