// The plane of universes: choose one, look at its map, and walk back to the one before.
// @ts-check
import {
  ARROWS, colourBar, figureOf, figures, floats, framed, make, newest, picture, push, RANGES,
  slider, spoken, words, written,
} from "./figure.js";
import { apply, channelMeans, CIVIDIS } from "./maths.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [360, 320, 46, 8, 8, 42];
const ENDS = ["before", "chosen"];

/**
 * Universes as points that can be chosen, by hand or with the arrow keys.
 * @param {{places: number[][], colours: string[], says: string[], titles: string[],
 *   choose: (i: number) => void}} how
 */
function chart({ places, colours, says, titles, choose }) {
  const name = `cf${Math.random().toString(36).slice(2)}`;
  const [[x0, x1], [y0, y1]] = [0, 1].map(i => {
    const along = places.map(place => place[i]);
    return [Math.min(...along) - 0.3, Math.max(...along) + 0.3];
  });
  const px = (/** @type {number} */ v) => LEFT + (v - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
  const py = (/** @type {number} */ v) =>
    HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - BOTTOM - TOP);
  const axes = make("g", { "aria-hidden": "true" });
  const text = (/** @type {Record<string, any>} */ where, /** @type {string} */ what) =>
    axes.append(make("text", where, what));
  for (let tick = Math.ceil(Math.min(x0, y0)); tick <= Math.max(x1, y1); tick++) {
    const number = String(tick).replace("-", "−");
    if (tick > x0 && tick < x1) {
      axes.append(make("line", { class: "cf-grid", x1: px(tick), x2: px(tick), y1: TOP, y2: HEIGHT - BOTTOM }));
      if (tick % 2 === 0) text({ x: px(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, number);
    }
    if (tick > y0 && tick < y1) {
      axes.append(make("line", { class: "cf-grid", x1: LEFT, x2: WIDTH - RIGHT, y1: py(tick), y2: py(tick) }));
      if (tick % 2 === 0) text({ x: LEFT - 5, y: py(tick) + 4, "text-anchor": "end" }, number);
    }
  }
  text({ x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, titles[0]);
  text({ transform: `translate(10 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, titles[1]);
  const points = places.map(([x, y], i) => make("circle", {
    cx: px(x), cy: py(y), r: 4.5, fill: colours[i], class: "cf-point", id: `${name}-${i}`,
    role: "option", "aria-label": says[i], "aria-selected": "false",
  }));
  const way = make("path", { class: "cf-way" }), here = make("circle", { r: 5, class: "cf-here" });
  const rings = ENDS.map(end => make("circle", { r: 8, class: `cf-ring cf-${end}` }));
  const list = make("g", { role: "listbox", tabindex: 0, "aria-label": "universes; arrow keys go to the next one" }, ...points);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "cf-plot cf-plane" },
    axes, list, make("g", { "aria-hidden": "true" }, way, ...rings, here));
  let chosen = 0;
  const nearest = (/** @type {(x: number, y: number) => number} */ distance) => {
    const far = points.map(({ cx, cy }) => distance(cx.baseVal.value, cy.baseVal.value));
    const least = Math.min(...far);
    return least < Infinity ? far.indexOf(least) : null;
  };
  svg.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const box = svg.getBoundingClientRect(), scale = WIDTH / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const found = nearest((cx, cy) => Math.hypot(cx - x, cy - y));
    if (found !== null) choose(found);
  });
  list.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const [x, y] = places[chosen];
    const found = nearest((cx, cy) => {  // in the quarter of the plane that the arrow shows
      const [dx, dy] = [cx - px(x), py(y) - cy];
      const along = dx * arrow[0] + dy * arrow[1], across = Math.abs(dx * arrow[1] + dy * arrow[0]);
      return along > 0 && across <= along ? Math.hypot(dx, dy) : Infinity;
    });
    if (found !== null) choose(found);
  });
  return {
    element: make("div", { class: "cf-plotted" }, svg),
    /** @param {number[]} ends the universe before, and the chosen one */
    mark(ends) {
      chosen = ends[1];
      points.forEach((point, i) => point.setAttribute("aria-selected", String(i === chosen)));
      list.setAttribute("aria-activedescendant", `${name}-${chosen}`);
      ends.forEach((end, i) => {
        rings[i].setAttribute("cx", px(places[end][0]));
        rings[i].setAttribute("cy", py(places[end][1]));
      });
      way.setAttribute("d", "M" + ends.map(end => places[end]).map(([x, y]) => `${px(x)} ${py(y)}`).join("L"));
    },
    /** @param {number[]} place on the way between them */
    walk([x, y]) {
      here.setAttribute("cx", px(x));
      here.setAttribute("cy", py(y));
    },
  };
}

figures.summaries = {
  needs: ["decoder"],
  maps: ["LH"],
  build({ about, model, report, maps }) {
    const channels = about.field[0], cells = about.field[1] * about.field[2];
    const universes = maps.LH.map(([first]) => first), { mean, std, directions, share } = about.plane;
    const place = (/** @type {ArrayLike<number>} */ field) => {
      const units = channelMeans(field, channels).map((s, c) => (s - mean[c]) / std[c]);
      return directions.map(d => d.reduce((sum, v, c) => sum + v * units[c], 0));
    };
    const says = universes.map(({ params }) =>
      about.params.map((name, i) => `${spoken(name)} = ${params[i].toFixed(2)}`).join(", "));
    const [low, high] = RANGES.Omega_m;
    const colours = universes.map(({ params: [omega] }) => {
      const at = 4 * Math.round(255 * Math.min(1, Math.max(0, (omega - low) / (high - low))));
      return `rgb(${CIVIDIS.slice(at, at + 3).join()})`;
    });
    const titles = ["first", "second"].map((order, i) =>
      `${order} direction (${Math.round(100 * share[i])} % of the variance)`);
    const told = words(), seen = picture({ side: about.side }), drawn = picture({ side: about.side });
    let noise = floats(about.starts.summaries[0].noise), seed = 1, at = 1;
    const omegas = universes.map(({ params }) => params[0]);
    let ends = [Math.min, Math.max].map(end => omegas.indexOf(end(...omegas)));

    // Means go straight from one end to the other. What varies about them is mixed so that
    // there is as much of it half-way as at the ends.
    const field = () => {
      const [a, b] = ends.map(i => universes[i].field), means = [a, b].map(f => channelMeans(f, channels));
      const [p, q] = [1 - at, at], size = Math.hypot(p, q);
      return a.map((v, i) => {
        const c = Math.floor(i / cells), [m, n] = [means[0][c], means[1][c]];
        return p * m + q * n + (p * (v - m) + q * (b[i] - n)) / size;
      });
    };
    const draw = newest(async () => {
      const now = field(), [from, to] = ends, walked = at;
      const log = await model.decode(now, noise);
      const read = apply(about.toParams, channelMeans(now, channels));
      const numbers = about.params.map((name, i) => `${spoken(name)} = ${read[i].toFixed(2)}`).join(", ");
      const where = walked === 1 ? `Simulated with ${says[to]}.`
        : `${Math.round(100 * walked)} % of the way from ${says[from]} to ${says[to]}.`;
      const story = `${where} Read from the eight numbers here: ${numbers}.`;
      drawn.show(log, `The map decoded here. ${story}`);
      const near = walked < 0.5 ? from : to;
      seen.show(universes[near].log, `The simulated map of the nearer end. ${says[near]}.`);
      plane.walk(place(now));
      told.say(written(story));
      report({ field: now, noise, log, read, ends: [...ends], walked, place: place(now) });
    });
    const walk = slider({
      name: "walk", spoken: "walk from the universe before to the chosen one", min: 0, max: 1,
      step: 0.02, value: 1, format: v => `${Math.round(100 * v)} %`,
      act(v) { at = v; return draw(); },
    });
    const choose = (/** @type {number} */ i) => {
      if (i === ends[1]) return;
      ends = [ends[1], i];
      plane.mark(ends);
      walk.move(1);
    };
    const plane = chart({ places: universes.map(u => place(u.field)), colours, says, titles, choose });
    plane.mark(ends);
    const element = figureOf("summaries", "The plane of universes",
      make("div", { class: "cf-panels cf-beside" },
        make("div", {}, plane.element,
          make("div", { class: "cf-bar", "aria-hidden": "true" },
            make("span", {}, String(low)), make("i", { class: "cf-cividis" }), make("span", {}, String(high)),
            make("small", {}, "Ωₘ of the simulation, a point for each")),
          make("div", { class: "cf-controls cf-one" }, walk.element),
          make("div", { class: "cf-buttons" },
            push("Any universe", () => choose(Math.floor(Math.random() * universes.length))),
            push("New fine detail", () => { noise = model.noise(++seed); draw(); }))),
        make("div", { class: "cf-pair" },
          framed("the nearer end", seen.element, about.box),
          framed("decoded here", drawn.element, about.box))),
      colourBar(),
      told.element);
    return { element, ready: draw(), reveal: () => walk.move(0.5) };
  },
};
