// Paint in the compressed field: change a cell of a channel, and see what follows.
// @ts-check
import {
  ARROWS, colourBar, figureOf, figures, floats, framed, make, newest, picture, plot, push,
  signed, slider, words,
} from "./figure.js";
import {
  channelMeans, CIVIDIS, DIFFERENCE, paint, powerSpectrum, stretches, wavenumbers,
} from "./maths.js";

const MOST = 3, CHANGE = 0.5;  // standard deviations; dex

figures.paint = {
  needs: ["decoder"],
  build({ about, model, report }) {
    const [start] = about.starts.paint, [channels, rows, columns] = about.field, cells = rows * columns;
    const k = wavenumbers(about.side, about.box), noise = floats(start.noise);
    const first = Float32Array.from(start.field), field = first.slice();
    // Values are told from the channel's mean, in units of its usual scatter.
    const mean = channelMeans(first, channels), usual = stretches(about.spreads, [0.3, 0.8], start.params);
    const std = about.spreads[0].map((log, i) => Math.exp(log) * usual[i]);
    let c = Math.min(3, channels - 1), cell = 2 * columns + 1;
    /** @type {Float32Array | null} */
    let before = null;
    /** @type {Float64Array | null} */
    let power0 = null;

    const value = (/** @type {number} */ channel, /** @type {number} */ i) =>
      (field[channel * cells + i] - mean[channel]) / std[channel];
    const map = picture({ side: about.side });
    const change = picture({ low: -CHANGE, high: CHANGE, colours: DIFFERENCE, side: about.side });
    const ratio = plot({
      k, y: "P(k) over P(k) at the start", range: [0.25, 4], ticks: [0.25, 0.5, 1, 2, 4],
      names: { now: "after your change" },
    });
    const told = words();

    const lights = Array.from({ length: channels }, (_, i) => {
      const light = picture({
        low: -MOST / 2, high: MOST / 2, colours: CIVIDIS, side: columns, decorates: true,
      });
      const button = make("button", {
        type: "button", class: "cf-light", "aria-label": `channel ${i}`, onclick: () => { c = i; show(); },
      }, light.element, make("span", { "aria-hidden": "true" }, String(i)));
      return { button, show: light.show };
    });
    const buttons = Array.from({ length: cells }, (_, i) => make("button", {
      type: "button", class: "cf-cell", onclick: () => { cell = i; show(); },
    }));
    const title = make("figcaption"), frames = [map, change].map(() => make("span", { class: "cf-here" }));
    const level = slider({
      name: "cell", spoken: "value of this cell, in standard deviations", min: -MOST, max: MOST, step: 0.1,
      value: 0, format: signed, act: v => put(v),
    });
    const show = () => {
      title.textContent = `channel ${c}`;
      lights.forEach((light, i) => {
        light.show(Float32Array.from({ length: cells }, (_, n) => value(i, n)));
        light.button.setAttribute("aria-pressed", String(i === c));
      });
      const values = buttons.map((_, i) => value(c, i));
      const colours = paint(values, -MOST / 2, MOST / 2, CIVIDIS);
      buttons.forEach((button, i) => {
        const [row, column] = [Math.floor(i / columns), i % columns];
        const at = 4 * ((rows - 1 - row) * columns + column);  // of `paint`: the highest row first
        button.style.background = `rgb(${colours.slice(at, at + 3).join()})`;
        button.style.gridArea = `${rows - row} / ${column + 1}`;
        button.tabIndex = i === cell ? 0 : -1;
        button.setAttribute("aria-pressed", String(i === cell));
        button.setAttribute("aria-label", `column ${column + 1}, row ${row + 1} from below: ${signed(values[i])}`);
      });
      const [row, column] = [Math.floor(cell / columns), cell % columns];
      for (const frame of frames) {
        frame.style.cssText = `width: ${100 / columns}%; height: ${100 / rows}%; ` +
          `left: ${100 * column / columns}%; bottom: ${100 * row / rows}%`;
      }
      level.set(value(c, cell));
    };
    const put = (/** @type {number} */ v) => {
      field[c * cells + cell] = mean[c] + std[c] * Math.min(MOST, Math.max(-MOST, v));
      show();
      return draw();
    };
    const draw = newest(async () => {
      const now = field.slice(), [channel, place] = [c, cell];
      const log = await model.decode(now, noise), power = powerSpectrum(log, about.box);
      before ??= log;
      power0 ??= power;
      const old = before, old0 = power0, side = about.side;
      const difference = log.map((v, i) => v - old[i]), share = power.map((v, i) => v / old0[i]);
      const rms = [0, 1].map(inside => {
        const part = difference.filter((_, i) => {
          const row = Math.floor(Math.floor(i / side) * rows / side), column = Math.floor(i % side * columns / side);
          return Number(row * columns + column === place) === inside;
        });
        return Math.sqrt(part.reduce((sum, v) => sum + v * v, 0) / part.length);
      });
      const from = (first[channel * cells + place] - mean[channel]) / std[channel];
      const says = `Channel ${channel}, this cell: ${signed(from)} at the start, ${signed(value(channel, place))} now. ` +
        `The map changes by ${rms[1].toFixed(2)} dex inside the frame and ${rms[0].toFixed(2)} outside (rms).`;
      map.show(log, `The map decoded from the field. ${says}`);
      change.show(difference, `What changed. ${says}`);
      ratio.draw("now", share);
      ratio.describe(`The power spectrum over that at the start. ${says}`);
      told.say(says);
      report({ field: now, noise, log, difference, ratio: share, rms });
    });
    const grid = make("div", {
      class: "cf-cells", role: "group", "aria-label": "cells; arrow keys go on, plus and minus change one",
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const arrow = ARROWS[event.key], by = { "+": 0.5, "=": 0.5, "-": -0.5 }[event.key];
        if (!arrow && !by) return;
        event.preventDefault();
        if (by) {
          put(value(c, cell) + by);
          return;
        }
        const row = (Math.floor(cell / columns) + arrow[1] + rows) % rows;  // the box is periodic
        cell = row * columns + (cell % columns + arrow[0] + columns) % columns;
        show();
        buttons[cell].focus();
      },
    }, ...buttons);
    const panels = [framed("the map", map.element, about.box), framed("what changed", change.element, about.box)];
    panels.forEach((panel, i) => panel.lastChild?.appendChild(frames[i]));
    show();
    const element = figureOf("paint", "Paint in the compressed field",
      make("div", { class: "cf-lights", role: "group", "aria-label": "channel to paint in" },
        make("span", {}, "channel"), ...lights.map(light => light.button)),
      make("div", { class: "cf-panels cf-three" },
        make("figure", { class: "cf-map" }, title, grid), ...panels),
      make("div", { class: "cf-bars" }, colourBar(),
        make("div", { class: "cf-bar", "aria-hidden": "true" }, make("span", {}, "−0.5"),
          make("i", { class: "cf-difference" }), make("span", {}, "+0.5"), make("small", {}, "change of log₁₀ [dex]"))),
      make("div", { class: "cf-controls cf-one" }, level.element),
      make("div", { class: "cf-buttons" },
        push("This cell back", () => put((first[c * cells + cell] - mean[c]) / std[c])),
        push("Back to the start", () => { field.set(first); show(); draw(); })),
      make("div", { class: "cf-under" }, ratio.element, told.element));
    const reveal = () => {
      [c, cell] = [Math.min(3, channels - 1), 2 * columns + 1];
      return put(MOST);
    };
    return { element, ready: draw(), reveal };
  },
};
