// SVG elements, and axes.

import { round, tickLabel } from "./style.js";

const NAMESPACE = "http://www.w3.org/2000/svg";

/** An SVG element with attributes and children. */
export function svg(name, attributes = {}, children = []) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A line of text. */
export function text(content, x, y, attributes = {}) {
  return svg("text", { x: round(x), y: round(y), ...attributes }, [String(content)]);
}

/** A picture with a background of its own, so that it can be saved as it is seen. */
export function picture(width, height, colors, label) {
  return svg("svg", {
    xmlns: NAMESPACE, width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label,
    "font-family": "system-ui, sans-serif", "font-size": 12, fill: colors.ink,
  }, [svg("rect", { width, height, fill: colors.ground })]);
}

/** A linear scale from a domain to pixels. */
export function scale([low, high], [from, to]) {
  const size = high - low || 1;
  return (value) => from + ((value - low) / size) * (to - from);
}

/** The frame of a chart: grid lines, tick labels, axis labels. */
export function frame(box, x, y, xTicks, yTicks, labels, colors) {
  const { left, top, right, bottom } = box;
  const parts = [];
  for (const tick of xTicks) {
    const place = round(x(tick));
    parts.push(svg("line", { x1: place, x2: place, y1: top, y2: bottom, stroke: colors.grid }));
    parts.push(text(tickLabel(tick), place, bottom + 15, { "text-anchor": "middle", fill: colors.faint, "font-size": 11 }));
  }
  for (const tick of yTicks) {
    const place = round(y(tick));
    parts.push(svg("line", { x1: left, x2: right, y1: place, y2: place, stroke: colors.grid }));
    parts.push(text(tickLabel(tick), left - 6, place + 4, { "text-anchor": "end", fill: colors.faint, "font-size": 11 }));
  }
  parts.push(svg("path", { d: `M${left} ${top}V${bottom}H${right}`, fill: "none", stroke: colors.faint }));
  parts.push(text(labels.x, (left + right) / 2, bottom + 32, { "text-anchor": "middle" }));
  if (labels.y) {
    const middle = (top + bottom) / 2;
    const turned = { "text-anchor": "middle", transform: `rotate(-90 ${left - 40} ${middle})` };
    parts.push(text(labels.y, left - 40, middle, turned));
  }
  if (labels.title) parts.push(text(labels.title, left, top - 8, { "font-weight": 600 }));
  return svg("g", {}, parts);
}

/** The corners of a path that are at least half a pixel apart, at most so many, each with the index of its measurement. */
export function corners(places, most = 2000) {
  const every = Math.ceil(places.length / most);
  const kept = [];
  let last;
  for (const one of places.filter((_, k) => k % every === 0 || k === places.length - 1)) {
    if (!Number.isFinite(one.x) || !Number.isFinite(one.y)) {
      if (last !== undefined) kept.push({ k: one.k, gap: true });
      last = undefined;
      continue;
    }
    if (last !== undefined && Math.abs(one.x - last.x) < 0.5 && Math.abs(one.y - last.y) < 0.5) continue;
    kept.push({ k: one.k, d: `${last === undefined ? "M" : "L"}${round(one.x)} ${round(one.y)}` });
    last = one;
  }
  return kept;
}

/** The path through all corners up to a measurement. */
export function pathUntil(kept, k) {
  let d = "";
  for (const one of kept) {
    if (one.k > k) break;
    d += one.d ?? "";
  }
  return d;
}

/** Places for labels beside their anchors that avoid one another and the anchors: [x, y, text-anchor] each. */
export function labelPlaces(anchors, widths, box, obstacles = anchors) {
  const taken = [];
  return anchors.map(({ x, y }, k) => {
    let best = { cost: Infinity };
    for (const reach of [9, 16, 26, 40, 58, 80]) {
      for (let turn = 0; turn < 8; turn++) {
        const angle = (turn * Math.PI) / 4;
        const [dx, dy] = [Math.cos(angle), Math.sin(angle)];
        const left = x + reach * dx + (dx < -0.1 ? -widths[k] : dx > 0.1 ? 0 : -widths[k] / 2);
        const spot = { left, right: left + widths[k], top: y + reach * dy - 8, bottom: y + reach * dy + 6 };
        let cost = reach + (turn === 0 ? 0 : 2);
        for (const other of taken) if (overlap(spot, other)) cost += 400;
        for (const other of obstacles) {
          if (other.x > spot.left - 5 && other.x < spot.right + 5 && other.y > spot.top - 5 && other.y < spot.bottom + 5) cost += 60;
        }
        const out = [box.left - spot.left, spot.right - box.right, box.top - spot.top, spot.bottom - box.bottom];
        for (const over of out) cost += 20 * Math.max(0, over);
        if (cost < best.cost) best = { cost, ...spot, reach };
      }
    }
    taken.push(best);
    return { x: best.left, y: (best.top + best.bottom) / 2 + 4.5, far: best.reach > 20, middle: (best.left + best.right) / 2 };
  });
}

function overlap(a, b) {
  return a.left < b.right + 2 && b.left < a.right + 2 && a.top < b.bottom && b.top < a.bottom;
}
