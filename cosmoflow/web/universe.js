// A live universe: two sliders for the cosmology, eight for the numbers behind it.
// @ts-check
import {
  colourBar, figures, floats, framed, make, newest, picture, plot, push, RANGES,
  slider, spoken, symbol, words,
} from "./figure.js";
import {
  apply, channelMeans, drawField, powerSpectrum, stretches, wavenumbers,
} from "./maths.js";

figures.universe = {
  needs: ["decoder"],
  build({ about, model, state }) {
    const [start] = about.starts.universe, channels = about.field[0];
    const map = picture("", { side: about.side });
    const k = wavenumbers(about.side, about.box);
    const spectrum = plot({
      label: "", k, y: "P(k) of density [(Mpc/h)²]", range: [0.05, 200],
      ticks: [0.1, 1, 10, 100], names: { now: "now", before: "at the start" },
    });
    const told = words();
    const { mean, std } = about.toParams.input;
    let seed = 1, base = Float32Array.from(start.field), noise = floats(start.noise);
    let anchor = [...start.params], params = [...anchor], shift = new Array(channels).fill(0);
    let stretch = new Array(channels).fill(1);
    /** @type {Float64Array | null} */
    let before = null;

    // Of another cosmology: the means move, and what varies about them is stretched.
    const field = () => {
      const means = channelMeans(base, channels);
      return base.map((v, i) => {
        const c = Math.floor(i * channels / base.length);
        return means[c] + shift[c] + (v - means[c]) * stretch[c];
      });
    };
    const draw = newest(async () => {
      const now = field(), log = await model.decode(now, noise);
      const power = powerSpectrum(log, about.box);
      before ??= power;
      const at = about.params.map((name, i) => `${spoken(name)} = ${params[i].toFixed(2)}`);
      const one = k.findIndex(v => v > 0.9), times = power[one] / before[one];
      const says = `${at.join(", ")}. Power at 1 h/Mpc: ${times.toFixed(2)} times that at the start.`;
      map.show(log, `A map of dark matter, 25 Mpc/h wide. ${at.join(", ")}.`);
      spectrum.draw("now", power);
      spectrum.draw("before", before);
      spectrum.describe(`The power spectrum of this map. ${says}`);
      told.say(says.replace("Omega m", "Ωₘ").replace("sigma 8", "σ₈"));
      Object.assign(state, { field: now, noise, log, power, k, params: [...params], draws: (state.draws ?? 0) + 1 });
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
        draw();
      },
    }));
    const numbers = mean.map((_, c) => slider({
      name: String(c + 1), spoken: `number ${c + 1}, in standard deviations`, min: -3, max: 3,
      step: 0.05, value: 0,
      format: v => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(1),
      act(v) {
        base = field();
        const by = v * std[c] + mean[c] - channelMeans(base, channels)[c];
        const cells = base.length / channels;
        base = base.map((value, i) => Math.floor(i / cells) === c ? value + by : value);
        settle();
        draw();
      },
    }));
    const showNumbers = () => channelMeans(field(), channels).forEach((s, c) =>
      numbers[c].set((s - mean[c]) / std[c]));
    /** The eight numbers say which universe this is. */
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
      [base, before] = [newField, null];
      settle(known);
      showNumbers();
      return draw();
    };
    showNumbers();

    const element = make("div", { tabindex: -1, class: "cf-figure cf-universe", role: "group", "aria-label": "A live universe" },
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
        push("Back to the start", () => {
          noise = floats(start.noise);
          begin(Float32Array.from(start.field), [...start.params]);
        })),
      told.element,
      make("details", {}, make("summary", {}, "The eight numbers behind it"),
        make("p", {}, "Each is the mean of one channel of the field, in standard deviations. " +
          "Move one, and the two sliders above show what a regression then reads from all eight."),
        make("div", { class: "cf-controls cf-numbers" }, ...numbers.map(n => n.element))));
    return { element, ready: draw() };
  },
};
