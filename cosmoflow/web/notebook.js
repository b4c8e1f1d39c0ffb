// A figure in an output cell of a notebook. The networks run in the notebook's kernel,
// which is asked by messages. cosmoflow/live.py joins this file and those it imports.
// @ts-check
import { mount } from "./figure.js";
import { midpoint } from "./solver.js";

let last = 0;

/**
 * An engine whose networks run in the kernel.
 * @param {any} model of the widget, as anywidget hands it over
 * @returns {import("./figure.js").Engine & {close: () => void}}
 */
function kernel(model) {
  /** @type {Map<number, {resolve: Function, reject: Function}>} */
  const waiting = new Map();
  const hear = (/** @type {any} */ { id, error, names }, /** @type {DataView[]} */ parts) => {
    const job = waiting.get(id);
    waiting.delete(id);
    if (error) return job?.reject(new Error(error));
    const numbers = parts.map(part =>
      new Float32Array(part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength)));
    job?.resolve(Object.fromEntries(numbers.map((part, i) => [names[i], part])));
  };
  model.on("msg:custom", hear);
  const run = (/** @type {string} */ network, /** @type {Record<string, [Float32Array, number[]]>} */ inputs) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject });
      const shapes = Object.fromEntries(Object.entries(inputs).map(([name, [, shape]]) => [name, shape]));
      const parts = Object.values(inputs).map(([numbers]) => numbers.slice().buffer);
      model.send({ id: last, network, shapes }, undefined, parts);
    });
  return {
    run, load: async () => {}, close: () => model.off("msg:custom", hear),
    flow: (/** @type {any} */ what, /** @type {(share: number) => void} */ progress) => midpoint(run, what, progress),
  };
}

export default {
  /** @param {{model: any, el: HTMLElement}} widget */
  async render({ model, el }) {
    const place = document.createElement("div"), engine = kernel(model);
    place.className = "cosmoflow-live";
    place.dataset.figure = model.get("figure");
    place.textContent = "The figure waits for its kernel.";
    place.addEventListener("keydown", event => event.stopPropagation());  // they are not for the notebook
    el.append(place);
    mount(place, { base: document.baseURI, engine, about: model.get("about") }).then(
      () => { place.dataset.state = "live"; },
      error => { place.textContent = `This figure could not start here (${error.message}).`; });
    return engine.close;
  },
};
