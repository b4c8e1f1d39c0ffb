// More and more matter at the same phases: simulations beside fields between two of them.
// @ts-check
import {
  colourBar, figureOf, figures, framed, make, newest, picture, plot, push, slider, symbol, words,
} from "./figure.js";
import {
  apply, channelMeans, crossCorrelation, meanBetween, powerSpectrum, wavenumbers,
} from "./maths.js";

const OMEGAS = [0.1, 0.2, 0.3, 0.4, 0.5];  // of the simulations
const STEP = 0.1;

figures.omega_m = {
  needs: ["decoder"],
  maps: ["1P"],
  build({ about, model, report, maps }) {
    const simulations = maps["1P"].slice(0, OMEGAS.length);  // they differ in Omega_m alone
    const k = wavenumbers(about.side, about.box), noise = model.noise(2);
    const shown = picture({ side: about.side }), between = picture({ side: about.side });
    const title = make("span"), told = words();
    const spectrum = plot({
      k, y: "P(k) of the log map [(Mpc/h)²]", range: [0.0005, 5],
      ticks: [0.001, 0.01, 0.1, 1], names: { now: "between the fields", end: "simulated" },
    });
    let view = 0, omega = OMEGAS[0];

    const field = (/** @type {number} */ share) => {
      const [thin, dense] = [0, OMEGAS.length - 1].map(i => simulations[i][view].field);
      return thin.map((v, i) => v + share * (dense[i] - v));
    };
    const read = (/** @type {Float32Array} */ field) =>
      apply(about.toParams, channelMeans(field, about.field[0]))[0];
    /** What is read of the simulations, and all along the line, in this view. */
    const readings = () => ({
      simulated: simulations.map(maps => read(maps[view].field)),
      line: Array.from({ length: 201 }, (_, i) => read(field(i / 200))),
    });
    let known = readings();
    const nearest = (/** @type {number[]} */ values, /** @type {number} */ sought) =>
      values.reduce((best, v, i) =>
        Math.abs(v - sought) < Math.abs(values[best] - sought) ? i : best, 0);
    /** Values of `y` at whole steps of Omega_m, read between them. */
    const at = (/** @type {number[]} */ y, /** @type {number} */ x) => {
      const place = (x - OMEGAS[0]) / STEP, i = Math.min(Math.floor(place + 1e-6), y.length - 2);
      return y[i] + (place - i) * (y[i + 1] - y[i]);
    };
    const share = () =>
      nearest(known.line, at(known.simulated, omega)) / (known.line.length - 1);
    const draw = newest(async () => {
      const w = share(), now = field(w), i = nearest(OMEGAS, omega);
      const truth = simulations[i][view].log, log = await model.decode(now, noise);
      const power = powerSpectrum(log, about.box, "log");
      const simulated = powerSpectrum(truth, about.box, "log");
      const r = crossCorrelation(log, truth), exact = Math.abs(OMEGAS[i] - omega) < 0.001;
      const name = `simulated, Ωₘ = ${OMEGAS[i].toFixed(1)}`;
      const way = `Ωₘ = ${omega.toFixed(2)} is ${w.toFixed(2)} of the way from the field of 0.1 to that of 0.5.`;
      const alike = exact ? ` Likeness to the simulation at k < 1: ${meanBetween(k, r, 0, 1).toFixed(2)}.` : "";
      title.textContent = name;
      shown.show(truth, `The nearest map of dark matter that was ${name}. It is ${about.box} Mpc/h wide.`);
      between.show(log, `The map of a field between two fields. ${way}`);
      spectrum.draw("now", power);
      spectrum.draw("end", simulated);
      spectrum.describe(`Power spectra of the two maps. ${way}${alike}`);
      told.say(way + alike);
      report({ field: now, noise, log, truth, power, simulated, r, k, omega, share: w });
    });
    const knob = slider({
      name: symbol("Omega_m"), spoken: "Omega m", min: OMEGAS[0], max: OMEGAS[4], step: 0.01,
      value: omega, act(v) { omega = v; return draw(); },
    });
    const halfWay = () => {
      const stops = Array.from({ length: 41 }, (_, i) => OMEGAS[0] + i / 100);
      return knob.move(stops[nearest(stops.map(v => at(known.simulated, v)), known.line[100])]);
    };
    const element = figureOf("omega", "From a thin universe to a dense one",
      make("div", { class: "cf-panels cf-three" },
        framed(title, shown.element, about.box),
        framed("between two fields", between.element, about.box), spectrum.element),
      colourBar(),
      make("div", { class: "cf-controls cf-one" }, knob.element),
      make("div", { class: "cf-buttons" }, push("Half-way between the fields", halfWay),
        push("Another view", () => {
          view = (view + 1) % simulations[0].length;
          known = readings();
          draw();
        })),
      told.element);
    return { element, ready: draw(), reveal: halfWay };
  },
};
