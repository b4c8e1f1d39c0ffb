// A flow in steps of midpoint, wherever the network runs: in the browser, or in a kernel.
// @ts-check

/**
 * The states of a flow, and where each seems to lead.
 * @param {Function} run a network by name, with its inputs
 * @param {{model: string, noise: Float32Array, field: Float32Array, fieldShape: number[],
 *   side: number, steps: number}} what
 * @param {(share: number) => void} progress
 * @param {() => Promise<boolean>} goesOn asked after each step: whether anyone still waits
 * @returns {Promise<{states: Float32Array, ends: Float32Array} | null>}
 */
export async function midpoint(run, { model, noise, field, fieldShape, side, steps }, progress,
  goesOn = async () => true) {
  const pixels = side * side, h = 1 / steps, map = [1, 1, side, side];
  const states = new Float32Array((steps + 1) * pixels), ends = states.slice();
  const velocity = async (/** @type {Float32Array} */ x, /** @type {number} */ t) => (await run(model, {
    x: [x, map], t: [Float32Array.of(t), [1]], field: [field, fieldShape],
  })).velocity;
  let x = noise;
  for (let n = 0; n < steps; n++) {
    const t = n * h, v = await velocity(x, t);
    states.set(x, n * pixels);
    ends.set(x.map((value, i) => value + (1 - t) * v[i]), n * pixels);
    const w = await velocity(x.map((value, i) => value + h / 2 * v[i]), t + h / 2);
    x = x.map((value, i) => value + h * w[i]);
    progress((n + 1) * h);
    if (!await goesOn()) return null;
  }
  states.set(x, steps * pixels);
  ends.set(x, steps * pixels);
  return { states, ends };
}
