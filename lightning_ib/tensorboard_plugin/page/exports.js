// What is seen as SVG and PNG, and its data as CSV.

const FIELDS = [
  "epoch", "step", "layer", "source", "quantity", "value", "standard_error", "unit", "n_samples", "verdict", "correction",
];

/** Several pictures beside one another as one SVG element. */
export function together(pictures, gap = 8) {
  const sizes = pictures.map((one) => [Number(one.getAttribute("width")), Number(one.getAttribute("height"))]);
  if (pictures.length === 1) return pictures[0].cloneNode(true);
  const whole = pictures[0].cloneNode(false);
  let [x, height] = [0, 0];
  pictures.forEach((one, k) => {
    const copy = one.cloneNode(true);
    copy.setAttribute("x", x);
    whole.append(copy);
    x += sizes[k][0] + gap;
    height = Math.max(height, sizes[k][1]);
  });
  whole.setAttribute("width", x - gap);
  whole.setAttribute("height", height);
  whole.setAttribute("viewBox", `0 0 ${x - gap} ${height}`);
  return whole;
}

/** A picture as the text of an SVG file. */
export function svgText(picture) {
  const copy = picture.cloneNode(true);
  for (const one of copy.querySelectorAll("[tabindex]")) one.removeAttribute("tabindex");
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}`;
}

/** A picture as a PNG of twice its size. */
export async function png(picture, factor = 2) {
  const [width, height] = ["width", "height"].map((side) => Number(picture.getAttribute(side)) * factor);
  const url = URL.createObjectURL(new Blob([svgText(picture)], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").drawImage(image, 0, 0, width, height);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
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
      for (const layer of measurement.layers.filter(hasLayer)) {
        for (const record of measurement.records(layer)) {
          const { source, quantity, value, standardError, unit, n, verdict, correction } = record;
          const where = [measurement.epoch, measurement.step, layer, source, quantity];
          const row = [...where, python(value), python(standardError), unit, n, verdict, correction];
          rows.push(several ? [run.name, ...row] : row);
        }
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
