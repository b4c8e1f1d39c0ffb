// Two universes, mixed channel by channel: which channel is for which scale?
// @ts-check
import {
  colourBar, figures, floats, framed, make, newest, picture, plot, push, words,
} from "./figure.js";
import { crossCorrelation, drawField, meanBetween, wavenumbers } from "./maths.js";

figures.scales = {
  needs: ["decoder"],
  build({ about, model, state }) {
    const channels = about.field[0], k = wavenumbers(about.side, about.box);
    const maps = ["A", "mixture", "B"].map(() => picture("", { side: about.side }));
    const alike = plot({
      label: "", k, y: "r(k): 1 where the waves are the same", range: [-0.2, 1], log: false,
      ticks: [0, 0.5, 1],
      names: { a: "mixture and A", b: "mixture and B", before: "A and B" },
    });
    const told = words();
    let seed = 1, noise = floats(about.starts.scales[0].noise), choice = new Array(channels).fill(0);
    let fields = about.starts.scales.map(start => Float32Array.from(start.field));
    /** @type {Float32Array[]} */
    let ends = [];

    const field = () => Float32Array.from(fields[0], (v, i) =>
      choice[Math.floor(i * channels / fields[0].length)] ? fields[1][i] : v);
    const draw = newest(async () => {
      if (!ends.length) for (const f of fields) ends.push(await model.decode(f, noise));
      const now = field(), log = await model.decode(now, noise);
      const [a, b] = ends.map(end => crossCorrelation(log, end));
      maps[0].show(ends[0], "Universe A.");
      maps[1].show(log, "A universe with some channels from A and some from B.");
      maps[2].show(ends[1], "Universe B.");
      alike.draw("a", a);
      alike.draw("b", b);
      alike.draw("before", crossCorrelation(ends[0], ends[1]));
      const from = choice.map((v, c) => v ? c : -1).filter(c => c >= 0);
      const large = meanBetween(k, b, 0, 1), fine = meanBetween(k, b, 3, 9);
      const says = `${from.length ? `From B: channels ${from.join(", ")}` : "All channels are from A"}. ` +
        `Likeness to B: ${large.toFixed(2)} on large scales (k < 1), ${fine.toFixed(2)} on fine ones (k > 3).`;
      alike.describe(`How alike the mixture and the two universes are. ${says}`);
      told.say(says);
      Object.assign(state, { field: now, noise, log, r: [a, b], k, ends, draws: (state.draws ?? 0) + 1 });
    });
    const switches = choice.map((_, c) => {
      const button = make("button", {
        type: "button", class: "cf-switch", "aria-pressed": "false",
        "aria-label": `channel ${c} from B`,
        onclick: () => set(c, 1 - choice[c]),
      }, make("b", {}, String(c)), make("span", {}, "A"), make("span", {}, "B"));
      return button;
    });
    const mark = () => switches.forEach((button, c) =>
      button.setAttribute("aria-pressed", String(Boolean(choice[c]))));
    const set = (/** @type {number} */ c, /** @type {number} */ v) => { choice[c] = v; mark(); draw(); };
    const all = (/** @type {(c: number) => boolean} */ rule) => {
      choice = choice.map((_, c) => Number(rule(c)));
      mark();
      return draw();
    };
    const firstHalf = () => all(c => c < channels / 2);
    const element = make("div", { tabindex: -1, class: "cf-figure cf-scales", role: "group", "aria-label": "Which channel for which scale?" },
      make("div", { class: "cf-panels cf-three cf-maps" }, ...maps.map((map, i) =>
        framed(["A", "the mixture", "B"][i], map.element, about.box))),
      colourBar(),
      make("div", { class: "cf-switches", role: "group", "aria-label": "each channel from A or B" }, ...switches),
      make("div", { class: "cf-buttons" },
        push("All from A", () => all(() => false)), push("First half from B", firstHalf),
        push("Last half from B", () => all(c => c >= channels / 2)),
        push("Two other universes", () => {
          fields = [0, 1].map(() => drawField(about.prior, about.field, 2 * ++seed + 1));
          ends = [];
          draw();
        })),
      make("div", { class: "cf-under" }, alike.element, told.element));
    return { element, ready: draw(), reveal: firstHalf };
  },
};
