// What is seen as SVG and PNG, and its data as CSV.

import { picture, svg, text } from "./svg.js";

const FIELDS = [
  "epoch", "step", "layer", "source", "quantity", "value", "standard_error", "unit", "n_samples", "verdict", "correction", "target",
];

const GAP = 8;
const ROW = 18;

/**
 * What is seen as one picture: the planes at the left, in rows as on the screen, the charts at the right, a legend below.
 *
 * @param {SVGElement[]} planes all of one size.
 * @param {SVGElement[]} charts all of one size.
 * @param {object} legend {layers: [name, color][], runs: [name, dash][], colors}.
 */
export function together(planes, charts, legend) {
  const columns = Math.min(planes.length, 2);
  const left = stack(planes, columns, 0);
  const right = stack(charts, 1, left.width + (planes.length > 0 ? GAP : 0));
  const width = right.x + right.width;
  const height = Math.max(left.height, right.height);
  const entries = [...legend.layers.map(([name, color]) => [name, color, ""]), ...legend.runs.map(([name, dash]) => [name, legend.colors.ink, dash])];
  const below = legendOf(entries, width, height + GAP, legend.colors);
  const whole = picture(width, height + GAP + below.height + GAP, legend.colors, "Information plane");
  whole.append(...left.copies, ...right.copies, ...below.parts);
  return whole;
}

function stack(pictures, columns, x) {
  const [width, height] = ["width", "height"].map((side) => Number(pictures[0]?.getAttribute(side) ?? 0));
  const copies = pictures.map((one, k) => {
    const copy = one.cloneNode(true);
    copy.setAttribute("x", x + (k % columns) * (width + GAP));
    copy.setAttribute("y", Math.floor(k / columns) * (height + GAP));
    return copy;
  });
  const rows = Math.ceil(pictures.length / columns) || 0;
  return { copies, x, width: columns * width + Math.max(0, columns - 1) * GAP, height: rows * (height + GAP) };
}

function legendOf(entries, width, top, colors) {
  const widest = Math.max(40, ...entries.map(([name]) => 7 * name.length + 44));
  const columns = Math.max(1, Math.floor(width / widest));
  const parts = entries.map(([name, color, dash], k) => {
    const [x, y] = [GAP + (k % columns) * widest, top + ROW * Math.floor(k / columns) + ROW / 2];
    const line = { x1: x, x2: x + 26, y1: y, y2: y, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash };
    return svg("g", {}, [svg("line", line), text(name, x + 32, y + 4, { fill: colors.ink, "font-size": 11.5 })]);
  });
  return { parts, height: ROW * Math.ceil(entries.length / columns) };
}

/** A picture as the text of an SVG file. */
export function svgText(seen) {
  const copy = seen.cloneNode(true);
  for (const one of copy.querySelectorAll("[tabindex]")) one.removeAttribute("tabindex");
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}`;
}

/** A picture as a PNG of twice its size. */
export async function png(seen, factor = 2) {
  const [width, height] = ["width", "height"].map((side) => Number(seen.getAttribute(side)) * factor);
  const url = URL.createObjectURL(new Blob([svgText(seen)], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").drawImage(image, 0, 0, width, height);
    const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    if (made === null) throw new Error(`the browser makes no picture of ${width} × ${height} pixels`);
    return made;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** The records of runs as CSV, as `History.to_csv` writes them; with a column `run` before where there are several. */
export function csv(runs, hasLayer) {
  const several = runs.length > 1;
  const rows = [several ? ["run", ...FIELDS] : FIELDS];
  for (const run of runs) {
    for (const measurement of run.measurements) {
      const records = measurement.layers.filter(hasLayer).flatMap((layer) => [...measurement.everyRecord(layer)]);
      for (const { layer, source, quantity, value, standardError, unit, n, verdict, correction, target } of records) {
        const where = [measurement.epoch, measurement.step, layer, source, quantity];
        const row = [...where, python(value), python(standardError), unit, n, verdict, correction, target];
        rows.push(several ? [run.name, ...row] : row);
      }
    }
  }
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function python(value) {
  if (Number.isNaN(value)) return "nan";
  return Number.isFinite(value) ? value : value > 0 ? "inf" : "-inf";
}

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Hand a file to the reader. */
export function download(content, name, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
