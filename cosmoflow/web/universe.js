// A live universe: two sliders for the cosmology, eight for the numbers behind it.
// @ts-check
import {
  colourBar, figureOf, figures, floats, framed, make, newest, picture, plot, push, RANGES,
  signed, slider, spoken, symbol, words, written,
} from "./figure.js";
import {
  apply, channelMeans, drawField, powerSpectrum, stretches, wavenumbers,
} from "./maths.js";

figures.universe = {
  needs: ["decoder"],
  build({ about, model, report }) {
    const [start] = about.starts.universe, channels = about.field[0];
    const cells = about.field[1] * about.field[2];
    const map = picture({ side: about.side }), k = wavenumbers(about.side, about.box);
    const spectrum = plot({
      k, y: "P(k) of density [(Mpc/h)²]", range: [0.05, 200],
      ticks: [0.1, 1, 10, 100], names: { now: "now", before: "at the start" },
    });
    const told = words();
    const { mean, std } = about.toParams.input;
    let seed = 1, base = Float32Array.from(start.field), noise = floats(start.noise);
    // `base` is of the cosmology `anchor`. `shift` and `stretch` lead from there to `params`.
    let anchor = [...start.params], params = [...anchor], shift = new Array(channels).fill(0);
    let stretch = new Array(channels).fill(1);
    /** The spectrum at the start; `anew`: the next one is. @type {Float64Array | null} */
    let before = null, anew = true;

    // Of another cosmology: the means move, and what varies about them is stretched.
    const field = () => {
      const means = channelMeans(base, channels);
      return base.map((v, i) => {
        const c = Math.floor(i / cells);
        return means[c] + shift[c] + (v - means[c]) * stretch[c];
      });
    };
    const draw = newest(async () => {
      const starts = anew, now = field();
      anew = false;
      const log = await model.decode(now, noise), power = powerSpectrum(log, about.box);
      if (starts || !before) before = power;
      const at = about.params.map((name, i) => `${spoken(name)} = ${params[i].toFixed(2)}`).join(", ");
      const one = k.findIndex(v => v > 0.9), times = power[one] / before[one];
      const says = `${at}. Power at 1 h/Mpc: ${times.toFixed(2)} times that at the start.`;
      map.show(log, `A map of dark matter, ${about.box} Mpc/h wide. ${at}.`);
      spectrum.draw("now", power);
      spectrum.draw("before", before);
      spectrum.describe(`The power spectrum of this map. ${says}`);
      told.say(written(says));
      report({ field: now, noise, log, power, before, k, params: [...params] });
    });

    const knobs = about.params.map((name, i) => slider({
      name: symbol(name), spoken: spoken(name), min: RANGES[name][0], max: RANGES[name][1],
      step: 0.01, value: params[i],
      act(v) {
        params[i] = v;
        const [from, to] = [anchor, params].map(p => apply(about.toSummary, p));
        shift = to.map((s, c) => s - from[c]);
        stretch = stretches(about.spreads, anchor, params);
        showNumbers();
        return draw();
      },
    }));
    const numbers = mean.map((_, c) => slider({
      name: String(c + 1), spoken: `number ${c + 1}, in standard deviations`, min: -3, max: 3,
      step: 0.05, value: 0, format: signed,
      act(v) {
        base = field();
        const by = v * std[c] + mean[c] - channelMeans(base, channels)[c];
        base = base.map((value, i) => Math.floor(i / cells) === c ? value + by : value);
        settle();
        return draw();
      },
    }));
    const showNumbers = () => channelMeans(field(), channels).forEach((s, c) =>
      numbers[c].set((s - mean[c]) / std[c]));
    /** The eight numbers say which universe this is, unless its cosmology is known. */
    const settle = (/** @type {number[] | null} */ known = null) => {
      shift.fill(0);
      stretch.fill(1);
      const read = known ?? apply(about.toParams, channelMeans(base, channels));
      params = read.map((v, i) => {
        const [low, high] = RANGES[about.params[i]];
        return Math.min(high, Math.max(low, v));
      });
      anchor = [...params];
      knobs.forEach((knob, i) => knob.set(params[i]));
    };
    const begin = (/** @type {Float32Array<ArrayBuffer>} */ newField, /** @type {number[] | null} */ known = null) => {
      [base, anew] = [newField, true];
      settle(known);
      showNumbers();
      return draw();
    };
    const backToStart = () => {
      noise = floats(start.noise);
      return begin(Float32Array.from(start.field), [...start.params]);
    };
    showNumbers();

    const element = figureOf("universe", "A live universe",
      make("div", { class: "cf-panels" },
        framed("dark matter", map.element, about.box), spectrum.element),
      colourBar(),
      make("div", { class: "cf-controls" }, ...knobs.map(knob => knob.element)),
      make("div", { class: "cf-buttons" },
        push("Draw a new universe", () => {
          noise = model.noise(2 * ++seed);
          begin(drawField(about.prior, about.field, 2 * seed + 1));
        }),
        push("New fine detail", () => { noise = model.noise(2 * ++seed); draw(); }),
        push("Back to the start", backToStart)),
      told.element,
      make("details", {}, make("summary", {}, "The eight numbers behind it"),
        make("p", {}, "Each is the mean of one channel of the field, in standard deviations. " +
          "Move one, and the two sliders above show what a regression then reads from all eight."),
        make("div", { class: "cf-controls cf-numbers" }, ...numbers.map(n => n.element))));
    const reveal = () => knobs[0].move(RANGES.Omega_m[0]);
    return { element, ready: draw(), reveal };
  },
};
