// What all live figures share. `mount` puts one into any element: on a page of the site,
// or in a notebook. The engine that runs the networks can be given, otherwise a worker is
// started. Each figure stands in a file of its own, which only its readers load.
// @ts-check
import { MAGMA, normals, paint } from "./maths.js";

/**
 * @typedef {import("./maths.js").Network} Network
 * @typedef {{run: Function, flow: Function, load: Function}} Engine
 * @typedef {{mean: number, std: number, prior: number[]}} Units of maps and fields of a model
 * @typedef {Units & {side: number, box: number, field: number[],
 *   params: string[], toParams: Network, toSummary: Network, spreads: number[][],
 *   starts: Record<string, {field: number[], noise: string, params: number[]}[]>,
 *   plane: {mean: number[], std: number[], directions: number[][], share: number[]},
 *   sorted?: Units & {steps: number, fields: number[][]},
 *   models: Record<string, string>, bytes: Record<string, number>, sets?: Record<string, any>}} About
 */

const MEGABYTE = 1e6;
const LABELS = /** @type {Record<string, string>} */ ({ Omega_m: "Ω", sigma_8: "σ" });
const INDEX = /** @type {Record<string, string>} */ ({ Omega_m: "m", sigma_8: "8" });
export const RANGES = /** @type {Record<string, number[]>} */ ({
  Omega_m: [0.1, 0.5], sigma_8: [0.6, 1],
});
/** Where the arrow keys lead: to the right, and up. */
export const ARROWS = /** @type {Record<string, number[]>} */ ({
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
});

// ---------------------------------------------------------------- small tools

/**
 * An element with its attributes and children.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
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
export const symbol = name => make("span", { class: "cf-symbol" }, LABELS[name],
  make("sub", {}, INDEX[name]));

/** The same in plain text, for those who listen. @param {string} name */
export const spoken = name => name.replace("_", " ");

/** What is spoken, with symbols for those who read. @param {string} text */
export const written = text => text.replaceAll("Omega m", "Ωₘ").replaceAll("sigma 8", "σ₈");

/** With a sign, and one digit behind the point. @param {number} v */
export const signed = v => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(1);

/**
 * Runs a job for the newest request only: what comes while it runs waits, the last wins.
 * @param {() => Promise<void>} job
 */
export function newest(job) {
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

/** @param {string} text in base64 */
const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

/** Numbers from base64 of float32. @param {string} text */
export const floats = text => new Float32Array(bytesOf(text).buffer);

// ---------------------------------------------------------------- parts of a figure

/**
 * The whole of a figure. It takes the focus once it lives.
 * @param {string} name for its style: `cf-name`
 * @param {string} label
 * @param {...HTMLElement} children
 * @returns {HTMLElement}
 */
export const figureOf = (name, label, ...children) => make("div",
  { tabindex: -1, class: `cf-figure cf-${name}`, role: "group", "aria-label": label }, ...children);

/**
 * A map in magma, or a channel of a field in cividis.
 * @param {{low?: number, high?: number, colours?: Uint8ClampedArray, side: number,
 *   decorates?: boolean}} how `decorates`: a label beside it says all, so that nobody need
 *   hear of it
 */
export function picture({ low = 10, high = 13, colours = MAGMA, side, decorates = false }) {
  const canvas = make("canvas", { width: side, height: side,
    ...decorates ? { "aria-hidden": "true" } : { role: "img", "aria-label": "" } });
  const context = canvas.getContext("2d");
  return {
    element: canvas,
    /** @param {ArrayLike<number>} values @param {string} [says] to those who do not see it */
    show(values, says) {
      context.putImageData(new ImageData(paint(values, low, high, colours), side), 0, 0);
      if (says) canvas.setAttribute("aria-label", says);
    },
  };
}

/** A map in its frame, with a title and a scale. @param {Node | string} title */
export function framed(title, /** @type {HTMLElement} */ canvas, /** @type {number} */ box) {
  const bar = make("span", { class: "cf-scale", "aria-hidden": "true" }, "5 Mpc/h");
  bar.style.width = `${100 * 5 / box}%`;
  return make("figure", { class: "cf-map" }, make("figcaption", {}, title),
    make("div", { class: "cf-frame" }, canvas, bar));
}

/** The scale of colours of all maps. */
export function colourBar() {
  return make("div", { class: "cf-bar", "aria-hidden": "true" },
    make("span", {}, "10"), make("i"), make("span", {}, "13"),
    make("small", {}, "log₁₀ surface density [(M☉/h)/(Mpc/h)²]"));
}

/**
 * Curves over wavenumber.
 * @param {{y: string, k: ArrayLike<number>, range: [number, number],
 *   ticks: number[], log?: boolean, names: Record<string, string>, over?: [string, number]}} how
 *   `over`: a curve, and the height above which the area below it is filled
 */
export function plot({ y, k, range, ticks, log = true, names, over }) {
  const [width, height, left, right, top, bottom] = [360, 330, 52, 8, 34, 46];
  const [k0, k1] = [k[0], k[k.length - 1]], place = log ? Math.log10 : (/** @type {number} */ v) => v;
  const px = (/** @type {number} */ v) =>
    left + Math.log(v / k0) / Math.log(k1 / k0) * (width - left - right);
  const py = (/** @type {number} */ v) => height - bottom
    - (place(v) - place(range[0])) / (place(range[1]) - place(range[0])) * (height - bottom - top);
  const svg = make("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "", class: "cf-plot",
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
  const area = make("path", { class: "cf-area" });
  if (over) svg.append(area);
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
      if (name !== over?.[0] || !values) return;
      const base = clip(over[1]), above = Array.from(values, (v, i) =>
        `${px(k[i]).toFixed(1)} ${Math.min(base, clip(v)).toFixed(1)}`);
      area.setAttribute("d", `M${px(k0)} ${base}L${above.join("L")}L${px(k1)} ${base}Z`);
    },
    /** @param {string} says to those who do not see it */
    describe(says) { svg.setAttribute("aria-label", says); },
  };
}

/**
 * A slider with its name and its value.
 * @param {{name: Node | string, spoken: string, min: number, max: number, step: number,
 *   value: number, format?: (v: number) => string, act: (v: number) => void | Promise<void>}} how
 */
export function slider({ name, spoken, min, max, step, value, format = v => v.toFixed(2), act }) {
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
    /** Shows a value. @param {number} v */
    set(v) { input.value = String(v); show(); },
    /** Shows a value and acts on it, as a hand would. @param {number} v */
    move(v) { part.set(v); return act(v); },
  };
  part.set(value);
  return part;
}

/** @param {string} says @param {() => void} act */
export const push = (says, act) => make("button", { type: "button", class: "cf-button", onclick: act }, says);

/**
 * A choice from a short list.
 * @param {string} label
 * @param {Record<string, string>} options what each value is called
 * @param {string} value
 * @param {(value: string) => void} act
 * @returns {HTMLSelectElement}
 */
export function choice(label, options, value, act) {
  const select = make("select", { class: "cf-button", "aria-label": label, onchange: () => act(select.value) },
    ...Object.entries(options).map(([v, says]) => make("option", { value: v, selected: v === value }, says)));
  return select;
}

/** How far a computation has got: hidden while there is none. @param {string} label */
export function progressBar(label) {
  const element = make("progress", { max: 1, value: 0, "aria-label": label, hidden: true });
  return {
    element,
    /** @param {number} share */
    show(share) {
      element.value = share;
      element.hidden = share >= 1;
    },
  };
}

/** What changed, in words: seen by all, read out once it rests. */
export function words() {
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
 * @param {Units} units of the model whose networks are asked
 */
function physics(engine, about, { mean, std } = about) {
  const pixels = about.side ** 2, shape = [1, ...about.field], map = [1, 1, about.side, about.side];
  return {
    /** log10 of surface density, of what a network made @param {Float32Array} x */
    log: x => x.map(v => v * std + mean),
    /** @param {number} seed */
    noise: seed => normals(pixels, seed),
    /** log10 of the map that a field and noise become in one evaluation
     * @param {Float32Array} field @param {Float32Array} noise
     * @returns {Promise<Float32Array>} */
    async decode(field, noise) {
      const { x } = await engine.run(about.models.decoder,
        { noise: [noise, map], field: [field, shape] });
      return this.log(x);
    },
    /** The way from noise to a map; null where a newer one was asked for meanwhile
     * @param {Float32Array} field @param {Float32Array} noise @param {number} steps
     * @param {(share: number) => void} progress @param {string} network
     * @returns {Promise<{states: Float32Array, ends: Float32Array} | null>} */
    flow: (field, noise, steps, progress, network = "velocity") => engine.flow({
      model: about.models[network], field, noise, fieldShape: shape, steps, side: about.side,
    }, progress),
  };
}

// ---------------------------------------------------------------- the table of figures

/**
 * What a figure is built from. `sorted` is the second model of those figures that offer it,
 * `load` gets a network that only some readers want, and `report` keeps what is shown now,
 * for tests, and counts.
 * @typedef {{params: number[], log: Float32Array, field: Float32Array<ArrayBuffer>}} Shipped
 * @typedef {ReturnType<typeof physics>} Model
 * @typedef {{about: About, model: Model, sorted: Model | null,
 *   load: (name: string, progress: (share: number) => void) => Promise<void>,
 *   report: (shown: Record<string, any>) => void,
 *   progress: (share: number) => void, maps: Record<string, Shipped[][]>}} Setting
 * @typedef {{needs: string[], maps?: string[], later?: string[],
 *   build: (setting: Setting) => {element: HTMLElement, ready: Promise<void>, reveal: () => void | Promise<void>}}} Figure
 */

/** Each figure puts itself in here, from a file of its own. @type {Record<string, Figure>} */
export const figures = {};

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
 * A set of shipped maps: its simulations, each a list of maps.
 * @param {any} told as cosmoflow/live.py tells it
 * @returns {Shipped[][]}
 */
function unpack({ each, range: [low, high], params, maps, fields }) {
  const field = floats(fields);
  const log = Float32Array.from(bytesOf(maps), v => low + v / 255 * (high - low));
  const count = each * params.length;
  const part = (/** @type {Float32Array<ArrayBuffer>} */ all, /** @type {number} */ i) =>
    all.slice(i * all.length / count, (i + 1) * all.length / count);
  return params.map((/** @type {number[]} */ p, /** @type {number} */ sim) =>
    Array.from({ length: each }, (_, i) => (
      { params: p, log: part(log, sim * each + i), field: part(field, sim * each + i) })));
}

/**
 * Puts a live figure in the place of a picture, once all that it needs is there.
 * @param {HTMLElement} place with `data-figure`; what it holds stays until then
 * @param {{base: string, say?: HTMLElement, put?: (figure: HTMLElement) => void,
 *   engine?: Engine, about?: About}} options where the module's files are; who tells of
 *   progress; how the figure takes its place; what else can run the networks
 * @returns {Promise<() => void | Promise<void>>} moves it to what answers the question before it
 */
export async function mount(place, {
  base, say, put = figure => place.replaceChildren(figure), engine, about,
}) {
  const name = place.dataset.figure ?? "";
  if (!(name in figures)) await import(`./${name}.js`);
  const figure = figures[name];
  about ??= /** @type {About} */ (await (await fetch(new URL("about.json", base))).json());
  if (!engine) {
    if (!engines.has(base)) engines.set(base, startEngine(base));
    engine = /** @type {Engine} */ (engines.get(base));
  }
  const { models: paths, bytes: sizes } = about;
  const models = figure.needs.map(name => paths[name]), sets = figure.maps ?? [];
  const all = [paths.engine, ...models, ...sets.map(name => paths[name])];
  const total = all.reduce((sum, path) => sum + (sizes[path] ?? 0), 0);
  const bar = make("progress", { max: total, value: 0, "aria-label": "loading the model" });
  say?.replaceChildren("Loading: ", bar, make("span", {}, ""));
  let got = 0;
  const count = (/** @type {number} */ bytes) => {
    bar.value = got += bytes;
    const text = `${(got / MEGABYTE).toFixed(1)} of ${(total / MEGABYTE).toFixed(1)} MB`;
    if (bar.nextSibling) bar.nextSibling.textContent = text;
  };
  /** @type {Record<string, Shipped[][]>} */
  const maps = {};
  await Promise.all([engine.load(models, count), ...sets.map(async name => {
    const told = about.sets?.[name] ?? await (await fetch(new URL(paths[name], base))).json();
    maps[name] = unpack(told);
    count(sizes[paths[name]] ?? 0);
  })]);
  const progress = (/** @type {number} */ share) => {
    [bar.max, bar.value] = [1, share];
    if (bar.nextSibling) bar.nextSibling.textContent = "following the flow";
  };
  const running = engine, shown = { draws: 0 };
  const { element, ready, reveal } = figure.build({
    about, maps, progress, model: physics(engine, about),
    sorted: about.sorted ? physics(engine, about, about.sorted) : null,
    async load(name, progress) {
      let got = 0;
      await running.load([paths[name]], (/** @type {number} */ bytes) =>
        progress((got += bytes) / sizes[paths[name]]));
    },
    report(now) { Object.assign(shown, now, { draws: shown.draws + 1 }); },
  });
  await ready;
  put(element);
  Object.assign(place, { cosmoflow: shown });
  return reveal;
}
