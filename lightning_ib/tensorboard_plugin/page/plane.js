// The information plane: I(X;T) to the right, I(T;Y) up, a path for each layer and a marker where it is now.

import { dashes, extent, markerPath, round, shortNames, shown, ticks } from "./style.js";
import { corners, frame, labelPlaces, pathUntil, picture, scale, svg, text } from "./svg.js";
import { bottlenecksOf, boundsOf, fanoOf } from "./tracks.js";

const MARGIN = { left: 62, top: 34, right: 22, bottom: 46 };
const NEAR = 0.3;
/** In all paths of a plane: as many are redrawn quickly, and more would hide one another. */
const MOST_CORNERS = 24000;
let nPlanes = 0;

/** The axes around all places of tracks; bounds count where they are near. */
export function domainOf(tracks, bounds, errors) {
  const [xs, ys] = [[], []];
  for (const track of tracks) {
    for (const one of track.places) {
      if (!one || !Number.isFinite(one.x) || !Number.isFinite(one.y)) continue;
      xs.push(one.x);
      ys.push(one.y);
      if (errors && one.fresh && one.k === track.places.length - 1) {
        if (one.dx) xs.push(one.x - one.dx, one.x + one.dx);
        if (one.dy) ys.push(one.y - one.dy, one.y + one.dy);
      }
    }
  }
  return { x: around(xs, bounds.hX), y: around(ys, bounds.hY), isEmpty: xs.length === 0 };
}

function around(values, bound) {
  let [low, high] = extent(values);
  if (low > high) return [0, 1];
  const least = Number.isFinite(bound) ? 0.05 * bound : 0.1;
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
  const reach = NEAR * (high - low);
  if (bound > high && bound < high + reach) high = bound;
  if (low > 0 && low < reach) low = 0;
  const pad = 0.06 * (high - low);
  return [low === 0 ? -0.3 * pad : low - pad, high + pad];
}

/** A plane that is drawn once for a view, and brought to a moment by `show`. */
export class Plane {
  /**
   * @param {object[]} tracks from tracksOf.
   * @param {object} domain from domainOf, common to all planes beside one another.
   * @param {object} setting {runs, view, colors, width, height, title, times}.
   */
  constructor(tracks, domain, setting) {
    const { runs, view, colors, width, height, title } = setting;
    Object.assign(this, { tracks, view, runs, colors, times: setting.times });
    this.element = picture(width, height, colors, `Information plane: ${title}`);
    this.box = { left: MARGIN.left, top: MARGIN.top, right: width - MARGIN.right, bottom: height - MARGIN.bottom };
    this.x = scale(domain.x, [this.box.left, this.box.right]);
    this.y = scale(domain.y, [this.box.bottom, this.box.top]);
    const elsewhere = (has) => (setting.hasX !== undefined && !has ? ", cells or bins" : "");
    const labels = {
      x: `I(X;T) [${view.unit}]${elsewhere(setting.hasX)}`, y: `I(T;Y) [${view.unit}]${elsewhere(setting.hasY)}`,
      title: title.length > width / 9 ? `${title.slice(0, width / 9 - 1)}…` : title,
    };
    const n = Math.max(3, Math.round(width / 90));
    this.element.append(frame(this.box, this.x, this.y, ticks(...domain.x, n), ticks(...domain.y, n), labels, colors));
    const most = Math.max(50, Math.floor(MOST_CORNERS / Math.max(1, tracks.length)));
    this.kept = tracks.map(({ places }) =>
      corners(places.filter((one) => one?.fresh).map((one) => ({ k: one.k, x: this.x(one.x), y: this.y(one.y) })), most),
    );
    const clip = `plane-${nPlanes++}`;
    const { left, top, right, bottom } = this.box;
    const inside = svg("rect", { x: left, y: top, width: right - left, height: bottom - top });
    const clipping = { "clip-path": `url(#${clip})` };
    [this.behind, this.clipped, this.moving] = [svg("g", clipping), svg("g", clipping), svg("g", {})];
    this.element.append(svg("clipPath", { id: clip }, [inside]), this.behind);
    this.#drawBounds(domain);
    this.#drawBottlenecks(domain);
    this.element.append(this.clipped, this.moving);
    if (domain.isEmpty) {
      const where = { "text-anchor": "middle", fill: colors.faint };
      this.element.append(text(setting.whyEmpty, width / 2, height / 2, where));
    }
  }

  #drawBounds(domain) {
    const { box, colors, view } = this;
    const bounds = boundsOf(this.runs, view.unit);
    const line = { stroke: colors.bound, "stroke-dasharray": "5 4", "data-part": "bound" };
    const words = { fill: colors.faint, "font-size": 11, "text-anchor": "end" };
    if (Number.isFinite(bounds.hY)) {
      const inside = bounds.hY <= domain.y[1];
      const y = inside ? round(this.y(bounds.hY)) : box.top + 18;
      if (inside) this.element.append(svg("line", { x1: box.left, x2: box.right, y1: y, y2: y, ...line }));
      const label = `H(Y) = ${shown(bounds.hY)}${inside ? "" : " ↑"}`;
      this.element.append(text(label, box.left + 6, y - 4, { ...words, "text-anchor": "start" }));
    }
    if (Number.isFinite(bounds.hX)) {
      const inside = bounds.hX <= domain.x[1];
      const x = round(this.x(bounds.hX));
      if (inside) this.element.append(svg("line", { x1: x, x2: x, y1: box.top, y2: box.bottom, ...line }));
      const label = `H(X) = ${shown(bounds.hX)}${inside ? "" : " →"}`;
      this.element.append(text(label, inside ? x - 4 : box.right, inside ? box.bottom - 8 : box.top - 8, words));
    }
  }

  /** The information-bottleneck curves, with shade above where there is one alone; a far one is named at the edge. */
  #drawBottlenecks(domain) {
    const { box, colors } = this;
    const curves = bottlenecksOf(this.runs, this.view);
    const several = curves.length > 1;
    curves.forEach(({ label, places, runs, whole }, k) => {
      const level = Math.max(places.at(-1)[1], 0);
      const all = [...places, [Math.max(domain.x[1], places.at(-1)[0]), level]];
      const line = all.map(([x, y]) => `${round(this.x(x))} ${round(this.y(y))}`).join("L");
      // Of several it is dashed as the paths of its run.
      const dash = several ? dashes(this.view.runNumbers.get(runs[0].name) ?? 0) : whole ? "" : "1 2";
      const style = { fill: "none", stroke: colors.bound, "stroke-width": whole ? 1.5 : 1, "data-part": "bottleneck" };
      this.behind.append(svg("path", { d: `M${line}`, ...style, ...(dash ? { "stroke-dasharray": dash } : {}) }));
      if (!several && whole) {
        const shade = { fill: colors.bound, opacity: 0.1, "data-part": "beyond" };
        this.behind.append(svg("path", { d: `M${line}V${box.top - 9999}H${round(this.x(all[0][0]))}Z`, ...shade }));
      }
      if (k > 0 && curves.slice(0, k).some((one) => one.label === label)) return;
      const inside = level <= domain.y[1] && level >= domain.y[0];
      // Points lie below a curve, so its name stands above; of a far one at the edge, below that of H(Y).
      const words = { fill: colors.faint, "font-size": 11, "text-anchor": inside ? "middle" : "start" };
      const [x, y] = inside ? [(box.left + box.right) / 2, round(this.y(level)) - 5] : [box.left + 6, box.top + 29 + 13 * k];
      this.element.append(text(`${label}${inside ? "" : " ↑"}`, x, y, words));
    });
  }

  /** Set the rim of one point apart, those of the others as they were. */
  choose(isChosen) {
    this.points.forEach((point, k) => {
      const [stroke, width] = isChosen(point) ? [this.colors.ink, 2.4] : this.rims[k];
      point.element.setAttribute("stroke", stroke);
      point.element.setAttribute("stroke-width", width);
    });
  }

  /** The plane as it is seen, without the rim of the chosen point. */
  picture() {
    const copy = this.element.cloneNode(true);
    const rims = this.rims ?? [];
    copy.querySelectorAll(".point").forEach((point, k) => {
      point.setAttribute("stroke", rims[k][0]);
      point.setAttribute("stroke-width", rims[k][1]);
    });
    return copy;
  }

  /** Draw the moment with index k. */
  show(k) {
    const { moving, view, colors, box } = this;
    const parts = [];
    this.#fano(k, parts);
    const here = [];
    this.tracks.forEach((track, index) => {
      if (view.trajectories) {
        const now = track.places[k];
        const end = Number.isFinite(now?.x) && Number.isFinite(now.y) ? `L${round(this.x(now.x))} ${round(this.y(now.y))}` : "";
        const until = pathUntil(this.kept[index], k);
        const d = until && until + end;
        const style = { fill: "none", stroke: track.color, "stroke-opacity": 0.55, "stroke-width": 1.5 };
        const of = { "stroke-dasharray": track.dash, "data-part": "path", "data-run": track.run?.name ?? "" };
        if (d.includes("L")) parts.push(svg("path", { d, ...style, ...of }));
      }
      const one = track.places[k];
      if (one && Number.isFinite(one.x) && Number.isFinite(one.y)) here.push({ track, one, x: this.x(one.x), y: this.y(one.y) });
    });
    for (const { track, one, x, y } of here) {
      if (Number.isFinite(one.baseline)) {
        const level = this.y(one.baseline);
        const line = { x1: round(x - 7), x2: round(x + 7), stroke: track.color, "stroke-width": 2, "data-part": "baseline" };
        const low = level > box.bottom;
        if (!low && level >= box.top) parts.push(svg("line", { ...line, y1: round(level), y2: round(level) }));
        else {
          const d = low ? `M${round(x - 4)} ${box.bottom - 6}h8l-4 6Z` : `M${round(x - 4)} ${box.top + 6}h8l-4 -6Z`;
          parts.push(svg("path", { d, fill: track.color, "data-part": "baseline" }));
        }
      }
      if (view.errors) parts.push(...this.#errors(track, one, x, y));
    }
    const radius = here.length > 30 ? 5 : 6.5;
    const markers = here.map(({ track, one, x, y }) => {
      const sound = one.verdict === "" || one.verdict === "ok";
      return svg("path", {
        d: markerPath(one.verdict, radius), transform: `translate(${round(x)} ${round(y)})`,
        fill: sound ? track.color : colors.ground, stroke: sound ? colors.ground : track.color, "stroke-width": sound ? 1.2 : 1.8,
        opacity: one.ended ? 0.35 : 1, role: "img", tabindex: -1, "aria-label": this.#spoken(track, one), class: "point",
        "data-layer": track.layer, "data-run": track.run?.name ?? "", "data-verdict": one.verdict,
      });
    });
    this.points = here.map(({ track, one }, index) => ({ track, one, element: markers[index] }));
    this.rims = markers.map((marker) => [marker.getAttribute("stroke"), marker.getAttribute("stroke-width")]);
    this.clipped.replaceChildren(...parts);
    moving.replaceChildren(...this.#labels(here), ...markers);
  }

  #fano(k, parts) {
    const found = fanoOf(this.runs, this.times[k], this.view).filter((value) => value > 0 && Number.isFinite(value));
    const { box, colors } = this;
    for (const value of found) {
      const y = this.y(value);
      if (y < box.top || y > box.bottom) continue;
      const style = { stroke: colors.bound, "stroke-dasharray": "1.5 3", "stroke-width": 1.5, "data-part": "fano" };
      parts.push(svg("line", { x1: box.left, x2: box.right, y1: round(y), y2: round(y), ...style }));
    }
    const least = Math.min(...found);
    if (found.length > 0 && this.y(least) < box.bottom) {
      const words = { fill: colors.faint, "font-size": 11 };
      const label = `Fano ≥ ${[...new Set(found.sort((a, b) => a - b).map(shown))].slice(0, 3).join(", ")}`;
      parts.push(text(label, box.left + 6, this.y(least) + 13, words));
    }
  }

  /** An ellipse of two standard errors, or of the spread of the mean; a bar where one of both is unknown. */
  #errors(track, one, x, y) {
    const rx = Math.abs(this.x(one.x + one.dx) - x);
    const ry = Math.abs(this.y(one.y + one.dy) - y);
    const style = { stroke: track.color, "stroke-opacity": 0.8, fill: track.color, "fill-opacity": 0.12, "data-part": "error" };
    if (rx > 0 && ry > 0) return [svg("ellipse", { cx: round(x), cy: round(y), rx: round(rx), ry: round(ry), ...style })];
    const bars = [];
    if (rx > 0) bars.push(svg("line", { x1: x - rx, x2: x + rx, y1: y, y2: y, ...style }));
    if (ry > 0) bars.push(svg("line", { x1: x, x2: x, y1: y - ry, y2: y + ry, ...style }));
    return bars;
  }

  /** Names beside the points, one a layer; of the first and the last alone where there is no room for all. */
  #labels(here) {
    const seen = new Set();
    const all = here.filter(({ track }) => !seen.has(track.layer) && seen.add(track.layer));
    const short = shortNames(all.map(({ track }) => track.layer));
    const isNamed = (k) => all.length <= (this.box.right - this.box.left) / 36 || k === 0 || k === all.length - 1;
    const named = all.filter((_, k) => isNamed(k));
    const names = short.filter((_, k) => isNamed(k));
    const places = labelPlaces(named, names.map((name) => 6.4 * name.length), this.box, here);
    return places.flatMap((place, k) => {
      const label = text(names[k], place.x, place.y, { "font-size": 11.5, "data-part": "label", "paint-order": "stroke" });
      label.setAttribute("stroke", this.colors.ground);
      label.setAttribute("stroke-width", 3);
      const { x, y } = named[k];
      const line = { x1: round(x), y1: round(y), x2: round(place.middle), y2: round(place.y - 4), stroke: this.colors.faint };
      return place.far ? [svg("line", { ...line, "stroke-width": 0.7 }), label] : [label];
    });
  }

  #spoken(track, one) {
    const run = track.run === undefined ? `mean of ${one.n} runs` : track.run.name;
    return `${track.layer}, ${run}: I(X;T) ${shown(one.x)}, I(T;Y) ${shown(one.y)} ${this.view.unit}, ${one.verdict || "no verdict"}`;
  }
}
