// The engine of the live figures: networks in ONNX Runtime's WebAssembly, off the page's
// own thread. It fetches only what is asked for, and says how far it has got.
// @ts-check
// @ts-expect-error  the site's build puts it there
import * as ort from "./engine/ort.mjs";
import { midpoint } from "./solver.js";

const here = new URL(".", import.meta.url);
const sessions = new Map();
/** @type {Promise<void> | undefined} */
let engine;
let latest = 0;

/** @typedef {(amount: number) => void} Progress */

const tell = (/** @type {number} */ id, /** @type {object} */ message) =>
  postMessage({ id, ...message });

/**
 * A file, with `progress` called on the way; an archive of gzip is opened.
 * @param {string} path
 * @param {Progress} progress gets the bytes that came
 */
async function read(path, progress) {
  const response = await fetch(new URL(path, here));
  if (!response.ok || !response.body) throw new Error(`${path}: ${response.status}`);
  const reader = response.body.getReader(), parts = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    progress(value.length);
  }
  const file = new Blob(parts), head = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (head[0] !== 0x1f || head[1] !== 0x8b) return file.arrayBuffer();
  return new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** Starts the engine. @param {Progress} progress */
async function start(progress) {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = await read("engine/ort.wasm.gz", progress);
}

/**
 * Loads networks, and the engine before the first.
 * @param {{id: number, models: string[]}} asked
 */
async function load({ id, models }) {
  const progress = (/** @type {number} */ bytes) => tell(id, { progress: bytes });
  engine ??= start(progress);
  const files = models.map(path => sessions.has(path) ? null : read(path, progress));
  await engine;
  for (const [i, path] of models.entries()) {
    const file = await files[i];
    if (!file) continue;
    const session = ort.InferenceSession.create(new Uint8Array(file),
      { executionProviders: ["wasm"], intraOpNumThreads: 1 });
    sessions.set(path, session);
    await session;
    delete ort.env.wasm.wasmBinary;  // 14 MB that are compiled by now
  }
  return {};
}

/**
 * What a network makes of its inputs.
 * @param {string} model
 * @param {Record<string, [Float32Array, number[]]>} inputs numbers and shape of each
 */
async function run(model, inputs) {
  /** @type {Record<string, object>} */
  const feeds = {};
  for (const [name, [data, shape]] of Object.entries(inputs)) {
    feeds[name] = new ort.Tensor("float32", data, shape);
  }
  const session = await sessions.get(model), outputs = await session.run(feeds);
  const names = /** @type {string[]} */ (session.outputNames);
  return Object.fromEntries(names.map(name => [name, outputs[name].data]));
}

/**
 * A flow, until another one is asked for.
 * @param {{id: number} & Parameters<typeof midpoint>[1]} asked
 */
async function flow({ id, ...what }) {
  latest = id;  // a newer flow ends an older one
  const progress = (/** @type {number} */ share) => tell(id, { progress: share });
  const readMessages = () => new Promise(resolve => setTimeout(resolve));
  return midpoint(run, what, progress, async () => {
    await readMessages();
    return latest === id;
  });
}

/** @type {Record<string, (asked: any) => Promise<unknown>>} */
const jobs = { load, flow, run: ({ model, inputs }) => run(model, inputs) };

onmessage = async ({ data }) => {
  try {
    tell(data.id, { result: await jobs[data.job](data) });
  } catch (error) {
    tell(data.id, { error: error instanceof Error ? error.message : String(error) });
  }
};
