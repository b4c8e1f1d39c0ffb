// Warm dark matter, shown to a model that has only seen cold: what comes back?
// @ts-check
import {
  colourBar, figureOf, figures, framed, make, newest, picture, plot, push, slider, words,
} from "./figure.js";
import { meanBetween, powerSpectrum, wavenumbers } from "./maths.js";

figures.warm = {
  needs: ["decoder"],
  maps: ["WDM", "CDM"],
  build({ about, model, report, maps }) {
    const k = wavenumbers(about.side, about.box), noise = model.noise(2);
    const last = 0.8 * k[k.length - 1];
    const pairs = maps.WDM.map((warm, i) => ({ warm, cold: maps.CDM[i] }));
    const weight = (/** @type {typeof pairs[0]} */ pair) => pair.warm[0].params[2];
    pairs.sort((a, b) => weight(a) - weight(b));
    const pictures = [0, 1, 2].map(() => picture({ side: about.side }));
    const ratios = plot({
      k, y: "ratio of powers, log maps", range: [0, 2.5], log: false,
      ticks: [0.5, 1, 1.5, 2], over: ["now", 1],
      names: { now: "warm: comes back / shown", before: "cold: comes back / shown",
        b: "warm / cold, simulated" },
    });
    const told = words();
    let which = pairs.length - 1, view = 0;
    /** @type {Map<Float32Array, Float32Array>} */
    const decoded = new Map();
    const back = async (/** @type {Float32Array} */ field) => {
      if (!decoded.has(field)) decoded.set(field, await model.decode(field, noise));
      return /** @type {Float32Array} */ (decoded.get(field));
    };
    const power = (/** @type {Float32Array} */ log) => powerSpectrum(log, about.box, "log");
    const over = (/** @type {Float64Array} */ a, /** @type {Float64Array} */ b) =>
      a.map((v, i) => v / b[i]);
    const small = (/** @type {Float64Array} */ ratio) => meanBetween(k, ratio, 3, last).toFixed(2);

    const draw = newest(async () => {
      const pair = pairs[which], [omega, sigma, keV] = pair.warm[0].params;
      const [warm, cold] = [pair.warm[view], pair.cold[view]], log = await back(warm.field);
      const [shown, twin] = [warm, cold].map(({ log }) => power(log));
      const excess = over(power(log), shown), lost = over(shown, twin);
      const universe = `${keV.toFixed(2)} keV, Ωₘ = ${omega.toFixed(2)}, σ₈ = ${sigma.toFixed(2)}`;
      pictures[0].show(cold.log, `The cold twin of a warm map. ${universe}.`);
      pictures[1].show(warm.log, `A simulated map of warm dark matter. ${universe}.`);
      pictures[2].show(log, "What the model makes of the field of the warm map.");
      ratios.draw("now", excess);
      ratios.draw("b", lost);
      const usual = over(power(await back(cold.field)), twin);
      ratios.draw("before", usual);
      const says = `${universe}. Above 3 h/Mpc the warm map has ${small(lost)} times the power of its ` +
        `cold twin. What comes back has ${small(excess)} times the power that was shown. For the twin: ${small(usual)}.`;
      ratios.describe(`Ratios of power spectra, with what comes back in excess in red. ${says}`);
      told.say(says);
      report({ field: warm.field, noise, log, shown: warm.log, excess, lost, usual, k, keV });
    });
    const knob = slider({
      name: "mass", spoken: "mass of the particle", min: 0, max: pairs.length - 1, step: 1,
      value: which, format: v => `${weight(pairs[v]).toFixed(2)} keV`,
      act(v) { which = v; return draw(); },
    });
    const element = figureOf("warm", "Warm dark matter through cold eyes",
      make("div", { class: "cf-panels cf-three cf-maps" }, ...pictures.map((map, i) =>
        framed(["cold twin", "warm", "comes back"][i], map.element, about.box))),
      colourBar(),
      make("div", { class: "cf-controls cf-one" }, knob.element),
      make("div", { class: "cf-buttons" }, push("Another view", () => {
        view = (view + 1) % pairs[0].warm.length;
        draw();
      })),
      make("div", { class: "cf-under" }, ratios.element, told.element));
    return { element, ready: draw(), reveal: () => knob.move(0) };
  },
};
