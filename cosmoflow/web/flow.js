// The flow from noise to a map, step by step, with the channels that are live.
// @ts-check
import {
  choice, colourBar, figureOf, figures, floats, framed, make, picture, plot, progressBar,
  push, slider, words,
} from "./figure.js";
import { CIVIDIS, drawField, powerSpectrum, wavenumbers } from "./maths.js";

figures.flow = {
  needs: ["velocity"],
  build({ about, model, report, progress }) {
    const [start] = about.starts.flow, channels = about.field[0];
    const k = wavenumbers(about.side, about.box);
    const now = picture({ side: about.side }), end = picture({ side: about.side });
    const spectrum = plot({
      k, y: "P(k)/t² of the log map [(Mpc/h)²]", range: [0.0005, 5],
      ticks: [0.001, 0.01, 0.1, 1], names: { now: "state at t", end: "map at t = 1" },
    });
    const told = words(), bar = progressBar("steps of the flow");
    let seed = 1, asked = 0, flows = 0, steps = 8, field = Float32Array.from(start.field), noise = floats(start.noise);
    /** @type {{states: Float32Array, ends: Float32Array} | null} */
    let path = null;

    const cells = field.length / channels, lights = Array.from({ length: channels }, (_, c) => {
      const light = picture({ low: -2, high: 2, colours: CIVIDIS, side: Math.sqrt(cells), decorates: true });
      const element = make("div", { class: "cf-light" }, light.element, make("span", { "aria-hidden": "true" }, String(c)));
      return { element, show: light.show };
    });
    const showField = () => lights.forEach((light, c) => {
      const part = field.subarray(c * cells, (c + 1) * cells);
      const { mean, std } = about.toParams.input;
      light.show(part.map(v => (v - mean[c]) / std[c] / 3));
    });

    const time = slider({
      name: "t", spoken: "flow time t, from noise to map", min: 0, max: 1, step: 1 / steps,
      value: 0, act: () => show(),
    });
    const show = () => {
      if (!path) return;
      const t = Number(time.input.value), n = Math.round(t * steps), pixels = about.side ** 2;
      const part = (/** @type {Float32Array} */ all, /** @type {number} */ i) =>
        model.log(all.slice(i * pixels, (i + 1) * pixels));
      const log = part(path.states, n), power = powerSpectrum(log, about.box, "log");
      const live = Math.max(1, channels - Math.floor(channels * t));
      now.show(log, `The state of the flow at t = ${t.toFixed(2)}.`);
      end.show(part(path.ends, n), `The denoised map at t = ${t.toFixed(2)}.`);
      spectrum.draw("now", t ? power.map(v => v / t ** 2) : null);
      spectrum.draw("end", powerSpectrum(part(path.states, steps), about.box, "log"));
      lights.forEach(({ element }, c) => element.classList.toggle("cf-off", c >= live));
      const says = `t = ${t.toFixed(2)}. ${live} of ${channels} channels are live.`;
      spectrum.describe("The power spectrum of the state, over t squared, " +
        `and that of the map it becomes. Where they agree, the scale has settled. ${says}`);
      told.say(says);
      report({ log, power, k, t, live, field, noise, steps, flows, end: part(path.states, steps) });
    };
    const compute = async () => {
      const mine = ++asked;
      const found = await model.flow(field, noise, steps, share => {
        progress(share);
        if (mine === asked) bar.show(share);
      });
      if (!found || mine !== asked) return;  // another flow was asked for meanwhile
      path = found;
      flows++;
      show();
    };
    const still = () => window.matchMedia?.("(prefers-reduced-motion: reduce)").matches;
    let playing = 0;
    const stop = () => { clearInterval(playing); playing = 0; play.textContent = "Play"; };
    const play = push("Play", () => {
      if (playing) return stop();
      if (Number(time.input.value) >= 1) time.set(0);
      show();
      play.textContent = "Pause";
      playing = window.setInterval(() => {
        time.set(Number(time.input.value) + 1 / steps);
        show();
        if (Number(time.input.value) >= 1) stop();
      }, Math.max(120, 2400 / steps));
    });
    time.input.addEventListener("pointerdown", stop);
    const counts = Object.fromEntries([1, 2, 4, 8, 16].map(n => [n, `${n} step${n > 1 ? "s" : ""}`]));
    const chosen = choice("steps of the solver", counts, String(steps), value => {
      stop();
      const t = Number(time.input.value);
      [path, steps] = [null, Number(value)];
      time.input.step = String(1 / steps);
      time.set(Math.round(t * steps) / steps);
      compute();
    });

    showField();
    time.set(0.5);
    const element = figureOf("flow", "From noise to a map",
      make("div", { class: "cf-panels cf-three" },
        framed("state at t", now.element, about.box),
        framed("denoised map", end.element, about.box), spectrum.element),
      colourBar(),
      make("div", { class: "cf-controls cf-one" }, time.element),
      make("div", { class: "cf-lights" }, make("span", {}, "live channels"), ...lights.map(light => light.element)),
      make("div", { class: "cf-buttons" }, ...(still() ? [] : [play]), chosen,
        push("Other noise", () => { stop(); noise = model.noise(2 * ++seed); path = null; compute(); }),
        push("Another universe", () => {
          stop();
          field = drawField(about.prior, about.field, 2 * ++seed + 1);
          showField();
          path = null;
          compute();
        }), bar.element),
      told.element);
    const reveal = () => {
      stop();
      time.set(still() ? 0.5 : 0);
      if (still()) show();
      else play.click();
    };
    return { element, ready: compute(), reveal };
  },
};
