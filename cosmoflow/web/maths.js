// The mathematics of the live figures: random numbers, spectra, colours, small networks.
// Nothing here knows of a page. tests/test_live.py holds it against the package.
// @ts-check

/**
 * Normal random numbers from a seed, the same in every browser.
 * @param {number} n how many
 * @param {number} seed any whole number
 * @returns {Float32Array<ArrayBuffer>}
 */
export function normals(n, seed) {
  let state = seed >>> 0;
  const uniform = () => {  // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length: n }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/**
 * The discrete Fourier transform, in place. The length is a power of two.
 * @param {Float64Array} re real parts
 * @param {Float64Array} im imaginary parts
 */
export function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {  // numbers change places: bits in reverse
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let half = 1; half < n; half *= 2) {  // two transforms become one, twice as long
    for (let k = 0; k < half; k++) {
      const c = Math.cos(Math.PI * k / half), s = -Math.sin(Math.PI * k / half);
      for (let a = k; a < n; a += 2 * half) {
        const b = a + half;
        const x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
        [re[b], im[b]] = [re[a] - x, im[a] - y];
        [re[a], im[a]] = [re[a] + x, im[a] + y];
      }
    }
  }
}

/**
 * The Fourier transform of an image: rows, then columns.
 * @param {ArrayLike<number>} image side * side numbers, row by row
 * @param {number} side a power of two
 * @returns {{re: Float64Array, im: Float64Array}}
 */
export function fft2(image, side) {
  const re = Float64Array.from(image), im = new Float64Array(side * side);
  for (let row = 0; row < side; row++) {
    const [from, to] = [row * side, (row + 1) * side];
    fft(re.subarray(from, to), im.subarray(from, to));
  }
  const [a, b] = [new Float64Array(side), new Float64Array(side)];
  for (let column = 0; column < side; column++) {
    for (let i = 0; i < side; i++) {
      a[i] = re[i * side + column];
      b[i] = im[i * side + column];
    }
    fft(a, b);
    for (let i = 0; i < side; i++) {
      re[i * side + column] = a[i];
      im[i * side + column] = b[i];
    }
  }
  return { re, im };
}

/**
 * What fluctuates in a map: density contrast, or log10 less its mean.
 * @param {ArrayLike<number>} log log10 surface density
 * @param {"density" | "log"} of
 * @returns {Float64Array} of mean 0
 */
export function contrast(log, of) {
  const mean = (/** @type {Float64Array} */ v) => v.reduce((a, b) => a + b, 0) / v.length;
  const density = Float64Array.from(log, v => 10 ** v), m = mean(density);
  if (of === "density") return density.map(v => v / m - 1);
  const clipped = density.map(v => Math.log10(Math.max(v, 1e-3 * m))), l = mean(clipped);
  return clipped.map(v => v - l);
}

/**
 * For each wave of a map its ring: its length in fundamental modes, rounded.
 * @param {number} side
 * @param {(ring: number, mode: number, length: number) => void} see called for each wave
 */
function eachMode(side, see) {
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const [y, x] = [row, column].map(i => i < side / 2 ? i : i - side);
      const length = Math.hypot(x, y), ring = Math.round(length);
      if (ring >= 1 && ring <= side / 2) see(ring - 1, row * side + column, length);
    }
  }
}

/**
 * Mean over each ring of waves, one fundamental mode wide.
 * @param {number} side
 * @param {(mode: number, length: number) => number} value of a wave
 * @returns {Float64Array} (side / 2): rings 1 to the Nyquist mode
 */
function ringMean(side, value) {
  const total = new Float64Array(side / 2), count = new Float64Array(side / 2);
  eachMode(side, (ring, mode, length) => {
    total[ring] += value(mode, length);
    count[ring]++;
  });
  return total.map((sum, i) => sum / count[i]);
}

/**
 * Mean wavenumber of each ring.
 * @param {number} side pixels along a side
 * @param {number} box side of the map, Mpc/h
 * @returns {Float64Array} h/Mpc
 */
export function wavenumbers(side, box) {
  return ringMean(side, (_, length) => length * 2 * Math.PI / box);
}

/**
 * The power spectrum of a map.
 * @param {ArrayLike<number>} log log10 surface density
 * @param {number} box side of the map, Mpc/h
 * @param {"density" | "log"} of
 * @returns {Float64Array} (Mpc/h)^2, one number for each of `wavenumbers`
 */
export function powerSpectrum(log, box, of = "density") {
  const side = Math.sqrt(log.length), unit = (box / side ** 2) ** 2;
  const { re, im } = fft2(contrast(log, of), side);
  return ringMean(side, mode => (re[mode] ** 2 + im[mode] ** 2) * unit);
}

/**
 * How alike two maps are at each wavenumber: 1 where the waves agree.
 * @param {ArrayLike<number>} one log10 surface density
 * @param {ArrayLike<number>} other log10 surface density
 * @returns {Float64Array} r(k)
 */
export function crossCorrelation(one, other) {
  const side = Math.sqrt(one.length);
  const [a, b] = [one, other].map(map => fft2(contrast(map, "log"), side));
  const [aa, bb, ab] = [[a, a], [b, b], [a, b]].map(([p, q]) =>
    ringMean(side, mode => p.re[mode] * q.re[mode] + p.im[mode] * q.im[mode]));
  return ab.map((v, i) => v / Math.sqrt(aa[i] * bb[i]));
}

/**
 * How little two changes share, however large each is.
 * @param {Float64Array} one 0 or more, at each wavenumber
 * @param {Float64Array} other the same
 * @returns {number} 0: both are at the same wavenumbers; 1: they share none
 */
export function selectivity(one, other) {
  const [p, q] = [one, other].map(change => {
    const total = change.reduce((a, b) => a + b, 0);
    return change.map(v => v / total);
  });
  return p.reduce((sum, v, i) => sum + Math.abs(v - q[i]), 0) / 2;
}

/**
 * Mean of a curve over a range of wavenumbers.
 * @param {ArrayLike<number>} k h/Mpc
 * @param {ArrayLike<number>} curve
 * @param {number} low h/Mpc
 * @param {number} high h/Mpc, no longer in it
 * @returns {number}
 */
export function meanBetween(k, curve, low, high) {
  const part = Array.from(curve).filter((_, i) => k[i] >= low && k[i] < high);
  return part.reduce((sum, v) => sum + v, 0) / part.length;
}

/**
 * Draws a field from its prior: white noise, coloured wave by wave.
 * @param {number[]} prior as `field_prior` makes it, (h, w, 1 + C, C, 2), flattened
 * @param {number[]} shape C, h, w
 * @param {number} seed
 * @returns {Float32Array<ArrayBuffer>} (C, h, w)
 */
export function drawField(prior, [channels, h, w], seed) {
  const cells = h * w, white = normals(channels * cells, seed);
  const angle = (/** @type {number} */ q, /** @type {number} */ i) =>
    2 * Math.PI * ((Math.floor(q / w) * Math.floor(i / w)) / h + (q % w) * (i % w) / w);
  const re = new Float64Array(channels * cells), im = new Float64Array(channels * cells);
  for (let d = 0; d < channels; d++) {
    for (let q = 0; q < cells; q++) {
      let x = 0, y = 0;
      for (let i = 0; i < cells; i++) {
        x += white[d * cells + i] * Math.cos(angle(q, i));
        y -= white[d * cells + i] * Math.sin(angle(q, i));
      }
      for (let c = 0; c < channels; c++) {
        const f = 2 * ((q * (channels + 1) + 1 + c) * channels + d);
        re[c * cells + q] += prior[f] * x - prior[f + 1] * y;
        im[c * cells + q] += prior[f] * y + prior[f + 1] * x;
      }
    }
  }
  return Float32Array.from({ length: channels * cells }, (_, n) => {
    const c = Math.floor(n / cells), i = n % cells;
    let sum = 0;
    for (let q = 0; q < cells; q++) {
      sum += re[c * cells + q] * Math.cos(angle(q, i))
        - im[c * cells + q] * Math.sin(angle(q, i));
    }
    return sum / cells + prior[2 * c];
  });
}

/**
 * @typedef {{mean: number[], std: number[]}} Scaler
 * @typedef {{weight: number[][], bias: number[]}} Layer
 * @typedef {{input: Scaler, layers: Layer[], output: Scaler}} Network
 */

/**
 * A small network: numbers in, numbers out, ReLU between its layers.
 * @param {Network} network
 * @param {ArrayLike<number>} x
 * @returns {number[]}
 */
export function apply({ input, layers, output }, x) {
  let h = Array.from(x, (v, i) => (v - input.mean[i]) / input.std[i]);
  layers.forEach(({ weight, bias }, n) => {
    h = weight.map((row, i) => row.reduce((sum, w, j) => sum + w * h[j], bias[i]));
    if (n < layers.length - 1) h = h.map(v => Math.max(0, v));
  });
  return h.map((v, i) => v * output.std[i] + output.mean[i]);
}

/**
 * By how much the scatter of each channel grows from one cosmology to another.
 * @param {number[][]} spreads coefficients of the log scatter, (6, C)
 * @param {number[]} from Omega_m and sigma_8
 * @param {number[]} to Omega_m and sigma_8
 * @returns {number[]} factors, (C)
 */
export function stretches(spreads, from, to) {
  const [p, q] = [from, to].map(([omega, sigma]) => {
    const [a, b] = [(omega - 0.3) / 0.1, (sigma - 0.8) / 0.1];
    return [1, a, b, a * a, a * b, b * b];
  });
  return spreads[0].map((_, c) =>
    Math.exp(q.reduce((sum, v, i) => sum + (v - p[i]) * spreads[i][c], 0)));
}

/**
 * Mean of each channel of a field.
 * @param {ArrayLike<number>} field (C, h, w)
 * @param {number} channels
 * @returns {number[]}
 */
export function channelMeans(field, channels) {
  const cells = field.length / channels, means = new Array(channels).fill(0);
  for (let i = 0; i < field.length; i++) means[Math.floor(i / cells)] += field[i] / cells;
  return means;
}

/**
 * A colour map from evenly spaced colours.
 * @param {string} stops "#rrggbb ..."
 * @returns {Uint8ClampedArray} 256 colours, four bytes each
 */
function palette(stops) {
  const colours = stops.split(" ").map(s => [1, 3, 5].map(i => parseInt(s.slice(i, i + 2), 16)));
  const bytes = new Uint8ClampedArray(1024);
  for (let i = 0; i < 256; i++) {
    const place = i / 255 * (colours.length - 1);
    const j = Math.min(Math.floor(place), colours.length - 2);
    const mix = colours[j].map((v, c) => v + (place - j) * (colours[j + 1][c] - v));
    bytes.set([...mix, 255], 4 * i);
  }
  return bytes;
}
export const MAGMA = palette(
  "#000004 #0a0822 #1d1147 #36106b #51127c #6a1c81 #832681 #9c2e7f #b73779 " +
  "#d0416f #e75263 #f56b5c #fc8961 #fea772 #fec488 #fde2a3 #fcfdbf");

export const CIVIDIS = palette(
  "#00224e #002e6a #1a386f #32436d #434e6c #535a6d #61656f #6f7073 #7d7c78 " +
  "#8c8878 #9b9476 #aba072 #bcae6c #cdbb63 #dec958 #f0d846 #fee838");

export const DIFFERENCE = palette(  // blue: less, white: the same, red: more
  "#053061 #2166ac #4393c3 #92c5de #d1e5f0 #f7f7f7 #fddbc7 #f4a582 #d6604d #b2182b #67001f");

/**
 * Colours of the pixels of an image whose first row is the lowest.
 * @param {ArrayLike<number>} values side * side, row by row
 * @param {number} low what the first colour stands for
 * @param {number} high what the last one stands for
 * @param {Uint8ClampedArray} colours
 * @returns {Uint8ClampedArray<ArrayBuffer>} four bytes a pixel, the highest row first
 */
export function paint(values, low, high, colours) {
  const side = Math.sqrt(values.length), bytes = new Uint8ClampedArray(4 * values.length);
  for (let i = 0; i < values.length; i++) {
    const share = Math.min(1, Math.max(0, (values[i] - low) / (high - low)));
    const colour = 4 * Math.round(255 * share);
    const up = (side - 1 - Math.floor(i / side)) * side + i % side;
    bytes.set(colours.subarray(colour, colour + 4), 4 * up);
  }
  return bytes;
}
