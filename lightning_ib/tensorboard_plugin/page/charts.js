// Quantities over time, one line for each layer, with a mark at the moment that the plane shows.

import { html } from "./details.js";
import { COUNTS, GRADIENT, factor, meanAndSpread } from "./runs.js";
import { dashes, extent, notation, round, ticks, timeTicks } from "./style.js";
import { corners, frame, pathUntil, picture, scale, svg, text } from "./svg.js";

const CHART_MARGIN = { left: 56, top: 26, right: 12, bottom: 40 };

/** A time on its axis: itself, or log(1 + t). */
export function onAxis(time, logarithmic) {
  return logarithmic ? Math.log1p(time) : time;
}

/** A chart of one quantity, drawn once for a view; `show` moves its mark. */
export class Chart {
  /**
   * @param {string} name "source/quantity".
   * @param {object} setting {runs, view, colors, layerColors, times, width, height, onPick}.
   */
  constructor(name, setting) {
    const { runs, view, colors, layerColors, times, width, height } = setting;
    Object.assign(this, { times, view, width });
    const [source, quantity] = name.split("/");
    const lines = linesOf(runs, view, layerColors, times, source, quantity);
    const ends = lines.flatMap((line) => (line.spread ? [1, 0, -1].map((sign) => beside(line, sign)) : [line.values]));
    const values = ends.flat().filter(Number.isFinite);
    const unit = unitOf(runs, source, quantity) ? ` [${view.unit}]` : "";
    const title = `${notation(quantity)}${unit}${[COUNTS, GRADIENT].includes(source) ? "" : `, ${source}`}`;
    this.drawn = picture(width, height, colors, title);
    this.box = { left: CHART_MARGIN.left, top: CHART_MARGIN.top, right: width - CHART_MARGIN.right, bottom: height - CHART_MARGIN.bottom };
    const [first, last] = [times[0] ?? 0, times.at(-1) ?? 1];
    const axis = [onAxis(first, view.logarithmic), onAxis(Math.max(last, first + 1), view.logarithmic)];
    this.place = scale(axis, [this.box.left, this.box.right]);
    this.x = (time) => this.place(onAxis(time, view.logarithmic));
    const [low, high] = values.length ? extent(values) : [0, 1];
    const pad = 0.06 * (high - low || 1);
    this.y = scale([low - pad, high + pad], [this.box.bottom, this.box.top]);
    const labels = { x: view.clock, title };
    const marks = timeTicks(first, Math.max(last, first + 1), view.logarithmic, 6);
    this.drawn.append(frame(this.box, this.x, this.y, marks, ticks(low - pad, high + pad, 4), labels, colors));
    for (const line of lines) this.#draw(line);
    if (values.length === 0) {
      const where = { "text-anchor": "middle", fill: colors.faint };
      const known = runs.some((run) => run.quantities.has(name));
      this.drawn.append(text(known ? "no finite value" : "not recorded here", width / 2, height / 2, where));
    }
    // A picture of its own over the lines: they are many, and stay as they are while the mark moves.
    this.mark = svg("line", { y1: this.box.top, y2: this.box.bottom, stroke: colors.ink, "stroke-width": 1, "data-part": "now" });
    const over = svg("svg", { width, height, class: "over", "aria-hidden": "true" }, [this.mark]);
    this.element = html("div", { class: "chart" }, [this.drawn, over]);
    this.element.addEventListener("click", (event) => setting.onPick(this.#nearest(event)));
    this.element.style.cursor = "pointer";
  }

  #draw(line) {
    const kept = corners(line.values.map((value, k) => ({ k, x: this.x(this.times[k]), y: this.y(value) })));
    const style = { fill: "none", stroke: line.color, "stroke-width": 1.5, "stroke-dasharray": line.dash, "data-layer": line.layer, "data-run": line.run?.name ?? "" };
    const d = pathUntil(kept, Infinity);
    this.drawn.append(svg("path", { d, ...style }));
    if (kept.length < 3) {
      for (const one of kept) {
        const [x, y] = (one.d ?? "").slice(1).split(" ");
        if (y !== undefined) this.drawn.append(svg("circle", { cx: x, cy: y, r: 2.5, fill: line.color }));
      }
    }
    if (line.spread) {
      for (const piece of piecesOf(line.values.map((value, k) => (Number.isFinite(line.spread[k]) ? value : NaN)))) {
        const [up, down] = [1, -1].map((sign) => piece.map((k) => [this.times[k], line.values[k] + sign * line.spread[k]]));
        const corner = [...up, ...down.reverse()].map(([time, value]) => `${round(this.x(time))} ${round(this.y(value))}`);
        this.drawn.append(svg("path", { d: `M${corner.join("L")}Z`, fill: line.color, "fill-opacity": 0.15, "data-part": "spread" }));
      }
    }
  }

  #nearest(event) {
    const bounds = this.element.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * this.width;
    let best = 0;
    this.times.forEach((time, k) => {
      if (Math.abs(this.x(time) - x) < Math.abs(this.x(this.times[best]) - x)) best = k;
    });
    return best;
  }

  /** The chart with its mark, as one picture. */
  picture() {
    const copy = this.drawn.cloneNode(true);
    copy.append(this.mark.cloneNode());
    return copy;
  }

  /** Mark the moment with index k. */
  show(k) {
    const x = round(this.x(this.times[k] ?? 0));
    this.mark.setAttribute("x1", x);
    this.mark.setAttribute("x2", x);
  }
}

/** The indices of finite values, in pieces between gaps. */
function piecesOf(values) {
  const pieces = [];
  values.forEach((value, k) => {
    if (!Number.isFinite(value)) return;
    if (k === 0 || !Number.isFinite(values[k - 1])) pieces.push([]);
    pieces.at(-1).push(k);
  });
  return pieces;
}

/** The values of a line, a spread above or below. */
function beside(line, sign) {
  return line.values.map((value, k) => value + sign * line.spread[k]);
}

function unitOf(runs, source, quantity) {
  for (const run of runs) {
    const unit = run.latest((one) => one.layers.map((layer) => one.record(source, quantity, layer)?.unit).find((found) => found !== undefined));
    if (unit !== undefined) return unit;
  }
  return "";
}

function linesOf(runs, view, layerColors, times, source, quantity) {
  const places = new Map(times.map((time, k) => [time, k]));
  const layers = [...layerColors.keys()].filter((layer) => view.hasLayer(layer));
  const lines = runs.flatMap((run) =>
    layers
      .filter((layer) => run.layers.includes(layer))
      .map((layer) => {
        const values = new Array(times.length);
        const errors = new Array(times.length);
        for (const one of run.measurements) {
          const found = one.record(source, quantity, layer);
          if (found === undefined) continue;
          const k = places.get(one[view.clock]);
          values[k] = found.value * factor(found.unit, view.unit);
          errors[k] = 2 * found.standardError * factor(found.unit, view.unit);
        }
        const spread = view.errors && errors.some((error) => error > 0) ? gapless(errors) : undefined;
        return { layer, color: layerColors.get(layer), run, dash: dashes(view.runNumbers.get(run.name) ?? 0), values: gapless(values), spread };
      }),
  );
  if (view.mode !== "mean" || runs.length < 2) return lines;
  return layers.map((layer) => {
    const of = lines.filter((line) => line.layer === layer);
    const means = times.map((_, k) => meanAndSpread(of.map((line) => line.values[k])));
    return {
      layer, color: layerColors.get(layer), dash: "",
      values: means.map((one) => one.mean), spread: means.map((one) => one.spread),
    };
  });
}

/** Between its own measurements a run has the value of the one before; after its end it has none. */
function gapless(values) {
  const end = values.findLastIndex((value) => value !== undefined);
  let last = NaN;
  return Array.from(values, (value, k) => (k > end ? NaN : (last = value === undefined ? last : value)));
}
