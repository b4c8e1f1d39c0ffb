// The live figures. `mount` puts one into any element: on a page of the site, or in a
// notebook. The engine that runs the networks can be given, otherwise a worker is started.
// @ts-check
import {
  CIVIDIS, MAGMA, apply, channelMeans, crossCorrelation, drawField, normals, paint,
  powerSpectrum, stretches, wavenumbers,
} from "./maths.js";

/**
 * @typedef {import("./maths.js").Network} Network
 * @typedef {{run: Function, flow: Function, load: Function}} Engine
 * @typedef {{side: number, box: number, field: number[], mean: number, std: number,
 *   params: string[], toParams: Network, toSummary: Network, prior: number[], spreads: number[][],
 *   starts: Record<string, {field: number[], noise: string, params: number[]}[]>,
 *   models: Record<string, string>, bytes: Record<string, number>}} About
 */

const MEGABYTE = 1e6;
const LABELS = /** @type {Record<string, string>} */ ({ Omega_m: "Ω", sigma_8: "σ" });
const INDEX = /** @type {Record<string, string>} */ ({ Omega_m: "m", sigma_8: "8" });
const RANGES = /** @type {Record<string, number[]>} */ ({
  Omega_m: [0.1, 0.5], sigma_8: [0.6, 1],
});

// ---------------------------------------------------------------- small tools

/**
 * An element with its attributes and children.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "tspan", "circle"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A name with its index below: Ω_m. @param {string} name */
const symbol = name => make("span", { class: "cf-symbol" }, LABELS[name],
  make("sub", {}, INDEX[name]));

/** The same in plain text, for those who listen. @param {string} name */
const spoken = name => name.replace("_", " ");

/**
 * Runs a job for the newest request only: what comes while it runs waits, the last wins.
 * @param {() => Promise<void>} job
 */
function newest(job) {
  let running = false, again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        await job();
      }
    } finally {
      running = false;
    }
  };
}

/** Numbers from base64 of float32. @param {string} text */
function floats(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// ---------------------------------------------------------------- parts of a figure

/**
 * A map in magma, or a channel of a field in cividis.
 * @param {string} label what it shows, for those who do not see it
 * @param {{low?: number, high?: number, colours?: Uint8ClampedArray, side: number}} how
 */
function picture(label, { low = 10, high = 13, colours = MAGMA, side }) {
  const canvas = make("canvas", { width: side, height: side, role: "img", "aria-label": label });
  const context = canvas.getContext("2d");
  return {
    element: canvas,
    /** @param {ArrayLike<number>} values @param {string} [says] */
    show(values, says) {
      context.putImageData(new ImageData(paint(values, low, high, colours), side), 0, 0);
      if (says) canvas.setAttribute("aria-label", says);
    },
  };
}

/** A map in its frame, with a title and a scale. @param {string} title */
function framed(title, /** @type {HTMLElement} */ canvas, /** @type {number} */ box) {
  const bar = make("span", { class: "cf-scale", "aria-hidden": "true" }, "5 Mpc/h");
  bar.style.width = `${100 * 5 / box}%`;
  return make("figure", { class: "cf-map" }, make("figcaption", {}, title),
    make("div", { class: "cf-frame" }, canvas, bar));
}

/** The scale of colours of all maps. */
function colourBar() {
  return make("div", { class: "cf-bar", "aria-hidden": "true" },
    make("span", {}, "10"), make("i"), make("span", {}, "13"),
    make("small", {}, "log₁₀ surface density [(M☉/h)/(Mpc/h)²]"));
}

/**
 * Curves over wavenumber.
 * @param {{label: string, y: string, k: ArrayLike<number>, range: [number, number],
 *   ticks: number[], log?: boolean, names: Record<string, string>}} how
 */
function plot({ label, y, k, range, ticks, log = true, names }) {
  const [width, height, left, right, top, bottom] = [360, 330, 52, 8, 34, 46];
  const [k0, k1] = [k[0], k[k.length - 1]], place = log ? Math.log10 : (/** @type {number} */ v) => v;
  const px = (/** @type {number} */ v) =>
    left + Math.log(v / k0) / Math.log(k1 / k0) * (width - left - right);
  const py = (/** @type {number} */ v) => height - bottom
    - (place(v) - place(range[0])) / (place(range[1]) - place(range[0])) * (height - bottom - top);
  const svg = make("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "cf-plot",
  });
  const text = (/** @type {number} */ x, /** @type {number} */ at, /** @type {string} */ what,
    /** @type {string} */ anchor) => make("text", { x, y: at, "text-anchor": anchor }, what);
  for (const tick of ticks) {
    svg.append(make("line", { class: "cf-grid", x1: left, x2: width - right, y1: py(tick), y2: py(tick) }),
      text(left - 6, py(tick) + 4, String(tick), "end"));
  }
  for (const tick of [0.5, 1, 2, 5]) {
    svg.append(make("line", { class: "cf-grid", x1: px(tick), x2: px(tick), y1: top, y2: height - bottom }),
      text(px(tick), height - bottom + 17, String(tick), "middle"));
  }
  svg.append(text((left + width - right) / 2, height - 8, "k [h/Mpc]", "middle"),
    text(2, 14, y, "start"));
  /** @type {Record<string, SVGPathElement>} */
  const paths = {};
  const legend = make("div", { class: "cf-legend", "aria-hidden": "true" });
  for (const [name, says] of Object.entries(names)) {
    svg.append(paths[name] = make("path", { class: `cf-curve cf-${name}` }));
    legend.append(make("span", {}, make("i", { class: `cf-key cf-${name}` }), says));
  }
  return {
    element: make("div", { class: "cf-plotted" }, svg, legend),
    /** @param {string} name @param {ArrayLike<number> | null} values */
    draw(name, values) {
      const clip = (/** @type {number} */ v) =>
        Math.min(height - bottom, Math.max(top, py(Math.max(v, range[0]))));
      const points = values ? Array.from(values, (v, i) => `${px(k[i]).toFixed(1)} ${clip(v).toFixed(1)}`) : [];
      paths[name].setAttribute("d", points.length ? "M" + points.join("L") : "");
    },
    /** @param {string} says */
    describe(says) { svg.setAttribute("aria-label", says); },
  };
}

/**
 * A slider with its name and its value.
 * @param {{name: Node | string, spoken: string, min: number, max: number, step: number,
 *   value: number, format?: (v: number) => string, act: (v: number) => void}} how
 */
function slider({ name, spoken, min, max, step, value, format = v => v.toFixed(2), act }) {
  const input = make("input", { type: "range", min, max, step, "aria-label": spoken });
  const output = make("span", { class: "cf-value", "aria-hidden": "true" });
  const show = () => {
    output.textContent = format(Number(input.value));
    input.setAttribute("aria-valuetext", format(Number(input.value)));
  };
  input.addEventListener("input", () => { show(); act(Number(input.value)); });
  const part = {
    element: make("label", { class: "cf-slider" }, make("span", {}, name), input, output),
    input,
    /** @param {number} v */
    set(v) { input.value = String(v); show(); },
  };
  part.set(value);
  return part;
}

/** @param {string} says @param {() => void} act */
const push = (says, act) => make("button", { type: "button", class: "cf-button", onclick: act }, says);

/** What changed, in words: seen by all, read out once it rests. */
function words() {
  const element = make("p", { class: "cf-words", role: "status" });
  let waiting = 0;
  return {
    element,
    /** @param {string} says */
    say(says) {
      clearTimeout(waiting);
      waiting = window.setTimeout(() => { element.textContent = says; }, 250);
    },
  };
}

// ---------------------------------------------------------------- the model

/**
 * The networks in physical terms.
 * @param {Engine} engine @param {About} about
 */
function physics(engine, about) {
  const shape = [1, ...about.field], map = [1, 1, about.side, about.side];
  const log = (/** @type {Float32Array} */ x) => x.map(v => v * about.std + about.mean);
  return {
    log,
    noise: (/** @type {number} */ seed) => normals(about.side ** 2, seed),
    /** log10 of the map that a field and noise become */
    async decode(/** @type {Float32Array} */ field, /** @type {Float32Array} */ noise) {
      const { x } = await engine.run(about.models.decoder,
        { noise: [noise, map], field: [field, shape] });
      return log(x);
    },
    async flow(/** @type {Float32Array} */ field, /** @type {Float32Array} */ noise,
      /** @type {number} */ steps, /** @type {(share: number) => void} */ progress) {
      return engine.flow({
        model: about.models.velocity, field, noise, fieldShape: shape, steps, side: about.side,
      }, progress);
    },
  };
}

// ---------------------------------------------------------------- figure: a universe

/** @type {Record<string, Figure>} */
export const figures = {};

/**
 * @typedef {{about: About, model: ReturnType<typeof physics>, state: any,
 *   progress: (share: number) => void}} Setting
 * @typedef {{needs: string[], build: (setting: Setting) => {element: HTMLElement, ready: Promise<void>}}} Figure
 */

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

// ---------------------------------------------------------------- figure: the flow

figures.flow = {
  needs: ["velocity"],
  build({ about, model, state, progress }) {
    const [start] = about.starts.flow, channels = about.field[0];
    const k = wavenumbers(about.side, about.box);
    const now = picture("", { side: about.side }), end = picture("", { side: about.side });
    const spectrum = plot({
      label: "", k, y: "P(k)/t² of the log map [(Mpc/h)²]", range: [0.0005, 5],
      ticks: [0.001, 0.01, 0.1, 1], names: { now: "state at t", end: "map at t = 1" },
    });
    const told = words();
    const bar = make("progress", { max: 1, value: 0, "aria-label": "steps of the flow" });
    let seed = 1, steps = 8, field = Float32Array.from(start.field), noise = floats(start.noise);
    /** @type {{states: Float32Array, ends: Float32Array} | null} */
    let path = null;

    const cells = field.length / channels, lights = Array.from({ length: channels }, (_, c) => {
      const light = picture("", { low: -2, high: 2, colours: CIVIDIS, side: Math.sqrt(cells) });
      const element = make("div", { class: "cf-light" }, light.element, make("span", { "aria-hidden": "true" }, String(c)));
      light.element.removeAttribute("role");
      light.element.setAttribute("aria-hidden", "true");
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
      Object.assign(state, { log, power, k, t, live, field, noise, steps, end: part(path.states, steps), shows: (state.shows ?? 0) + 1 });
    };
    const compute = newest(async () => {
      bar.hidden = false;
      const found = await model.flow(field, noise, steps, share => {
        bar.value = share;
        progress(share);
      });
      bar.hidden = true;
      if (!found) return;
      path = found;
      state.flows = (state.flows ?? 0) + 1;
      show();
    });
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
    const chosen = make("select", {
      "aria-label": "steps of the solver",
      onchange: () => {
        stop();
        const t = Number(time.input.value);
        [path, steps] = [null, Number(chosen.value)];
        time.input.step = String(1 / steps);
        time.set(Math.round(t * steps) / steps);
        compute();
      },
    }, ...[1, 2, 4, 8, 16].map(n => make("option", { value: n, selected: n === steps }, `${n} step${n > 1 ? "s" : ""}`)));

    showField();
    time.set(0.5);
    const element = make("div", { tabindex: -1, class: "cf-figure cf-flow", role: "group", "aria-label": "From noise to a map" },
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
        }), bar),
      told.element);
    return { element, ready: compute() };
  },
};

// ---------------------------------------------------------------- figure: scales

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
    const range = (/** @type {Float64Array} */ r, /** @type {number} */ low, /** @type {number} */ high) => {
      const part = Array.from(r).filter((_, i) => k[i] >= low && k[i] < high);
      return part.reduce((sum, v) => sum + v, 0) / part.length;
    };
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
      const large = range(b, 0, 1), fine = range(b, 3, 9);
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
      draw();
    };
    const element = make("div", { tabindex: -1, class: "cf-figure cf-scales", role: "group", "aria-label": "Which channel for which scale?" },
      make("div", { class: "cf-panels cf-three cf-maps" }, ...maps.map((map, i) =>
        framed(["A", "the mixture", "B"][i], map.element, about.box))),
      colourBar(),
      make("div", { class: "cf-switches", role: "group", "aria-label": "each channel from A or B" }, ...switches),
      make("div", { class: "cf-buttons" },
        push("All from A", () => all(() => false)), push("First half from B", () => all(c => c < channels / 2)),
        push("Last half from B", () => all(c => c >= channels / 2)),
        push("Two other universes", () => {
          fields = [0, 1].map(() => drawField(about.prior, about.field, 2 * ++seed + 1));
          ends = [];
          draw();
        })),
      make("div", { class: "cf-under" }, alike.element, told.element));
    return { element, ready: draw() };
  },
};

// ---------------------------------------------------------------- engine and mounting

/**
 * The engine in a worker.
 * @param {string} base where `worker.js` is
 * @returns {Engine}
 */
export function startEngine(base) {
  const worker = new Worker(new URL("worker.js", base), { type: "module" });
  /** @type {Map<number, any>} */
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data }) => {
    const job = waiting.get(data.id);
    if ("progress" in data) return job.progress?.(data.progress);
    waiting.delete(data.id);
    if ("error" in data) job.reject(new Error(data.error));
    else job.resolve(data.result);
  };
  worker.onerror = event => {
    for (const job of waiting.values()) job.reject(new Error(event.message || "no worker"));
    waiting.clear();
  };
  const ask = (/** @type {any} */ message, /** @type {any} */ progress) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject, progress });
      worker.postMessage({ id: last, ...message });
    });
  return {
    load: (/** @type {string[]} */ models, /** @type {any} */ progress) => ask({ job: "load", models }, progress),
    run: (/** @type {string} */ model, /** @type {any} */ inputs) => ask({ job: "run", model, inputs }, null),
    flow: (/** @type {any} */ what, /** @type {any} */ progress) => ask({ job: "flow", ...what }, progress),
  };
}

/** @type {Map<string, Engine>} */
const engines = new Map();

/**
 * Puts a live figure in the place of a picture, once all that it needs is there.
 * @param {HTMLElement} place with `data-figure`; what it holds stays until then
 * @param {{base: string, say?: HTMLElement, put?: (figure: HTMLElement) => void,
 *   engine?: Engine, about?: About}} options where the module's files are; who tells of
 *   progress; how the figure takes its place; what else can run the networks
 */
export async function mount(place, {
  base, say, put = figure => place.replaceChildren(figure), engine, about,
}) {
  const figure = figures[place.dataset.figure ?? ""];
  if (!figure) throw new Error(`no figure ${place.dataset.figure}`);
  about ??= /** @type {About} */ (await (await fetch(new URL("about.json", base))).json());
  if (!engine) {
    if (!engines.has(base)) engines.set(base, startEngine(base));
    engine = /** @type {Engine} */ (engines.get(base));
  }
  const models = figure.needs.map(name => about.models[name]);
  const total = [about.models.engine, ...models].reduce((sum, path) => sum + about.bytes[path], 0);
  const bar = make("progress", { max: total, value: 0, "aria-label": "loading the model" });
  say?.replaceChildren("Loading: ", bar, make("span", {}, ""));
  let got = 0;
  await engine.load(models, (/** @type {number} */ bytes) => {
    bar.value = got += bytes;
    const text = `${(got / MEGABYTE).toFixed(1)} of ${(total / MEGABYTE).toFixed(1)} MB`;
    if (bar.nextSibling) bar.nextSibling.textContent = text;
  });
  const state = {};
  const progress = (/** @type {number} */ share) => {
    [bar.max, bar.value] = [1, share];
    if (bar.nextSibling) bar.nextSibling.textContent = "following the flow";
  };
  const { element, ready } = figure.build({ about, model: physics(engine, about), state, progress });
  await ready;
  put(element);
  Object.assign(place, { cosmoflow: state });
}
