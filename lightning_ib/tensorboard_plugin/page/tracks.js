// The paths of the plane: for each layer (of each run, or of their mean) its place at every moment.

import { COUNTS, factor, meanAndSpread } from "./runs.js";
import { dashes } from "./style.js";

/**
 * The tracks of a view.
 *
 * @param {Run[]} runs those that are drawn together.
 * @param {object} view the choices of the reader, see view.js.
 * @param {number[]} times the moments.
 * @param {Map<string, string>} colors layer → color.
 * @returns {object[]} tracks with `layer`, `run` (undefined for a mean), `color`, `dash` and `places`: for each moment
 *   {k, x, y, dx, dy, baseline, verdict, measurement, fresh}, or undefined before the first measurement.
 */
export function tracksOf(runs, view, times, colors) {
  const layers = [...colors.keys()].filter((layer) => view.hasLayer(layer));
  const all = runs.map((run) => {
    const measured = times.map((time) => run.at(time, view.clock));
    const end = run.end(view.clock);
    return layers
      .filter((layer) => run.layers.includes(layer))
      .map((layer) => ({
        layer, run, color: colors.get(layer), dash: dashes(view.runNumbers.get(run.name) ?? 0),
        places: measured.map((one, k) => one && place(one, layer, view, { k, fresh: one !== measured[k - 1], ended: times[k] > end })),
      }));
  });
  return view.mode === "mean" && runs.length > 1 ? layers.map((layer) => meanTrack(all.flat(), layer, times)).filter(Boolean) : all.flat();
}

/** The place of a layer: an estimator that gives one of both coordinates has the other from the counts. */
function place(measurement, layer, view, when) {
  const ofX = measurement.record(view.source, "I_XT", layer) ?? measurement.record(COUNTS, "I_XT", layer);
  const ofY = measurement.record(view.source, "I_TY", layer) ?? measurement.record(COUNTS, "I_TY", layer);
  if (ofX === undefined || ofY === undefined) return undefined;
  const [xUnit, yUnit] = [factor(ofX.unit, view.unit), factor(ofY.unit, view.unit)];
  const flagged = [ofY, ofX].find(({ verdict }) => verdict !== "" && verdict !== "ok") ?? ofY;
  return {
    ...when, measurement, verdict: flagged.verdict, of: flagged.source,
    x: ofX.value * xUnit, y: ofY.value * yUnit,
    dx: 2 * ofX.standardError * xUnit, dy: 2 * ofY.standardError * yUnit,
    baseline: view.source === COUNTS ? measurement.value(COUNTS, "I_TY_permuted", layer, view.unit) : NaN,
  };
}

/** The mean over runs and its spread: one standard deviation among them, to either side. */
function meanTrack(tracks, layer, times) {
  const of = tracks.filter((track) => track.layer === layer);
  if (of.length === 0) return undefined;
  const places = times.map((_, k) => {
    // A run that is over is no longer part of the mean.
    const here = of.map((track) => track.places[k]).filter((one) => one && !one.ended && Number.isFinite(one.x) && Number.isFinite(one.y));
    if (here.length === 0) return undefined;
    const [x, y] = [meanAndSpread(here.map((one) => one.x)), meanAndSpread(here.map((one) => one.y))];
    const doubtful = here.filter((one) => one.verdict !== "ok" && one.verdict !== "");
    return {
      k, x: x.mean, y: y.mean, dx: x.spread, dy: y.spread, n: here.length, fresh: here.some((one) => one.fresh),
      verdict: doubtful[0]?.verdict ?? "ok", of: doubtful[0]?.of, nFlagged: doubtful.length,
      measurement: (doubtful[0] ?? here[0]).measurement,
      baseline: meanAndSpread(here.map((one) => one.baseline)).mean,
    };
  });
  return { layer, run: undefined, color: of[0].color, dash: "", places, of };
}

/** The bounds of the axes: H(X), H(Y) in a unit, over the last measurements of runs; NaN where they are missing. */
export function boundsOf(runs, unit) {
  const greatest = (quantity) => {
    const found = runs.map((run) =>
      run.latest((one) => {
        const values = one.layers.map((layer) => one.value(COUNTS, quantity, layer, unit)).filter(Number.isFinite);
        return values.length > 0 ? Math.max(...values) : undefined;
      }),
    );
    return Math.max(...found.filter((value) => value !== undefined));
  };
  return { hX: greatest("H_X"), hY: greatest("H_Y") };
}

/** Fano's bound of each run at a moment. */
export function fanoOf(runs, time, view) {
  return runs.map((run) => {
    const measurement = run.at(time, view.clock);
    const found = (measurement?.layers ?? []).map((layer) => measurement.value(COUNTS, "I_TY_fano", layer, view.unit));
    return Math.max(...found.filter(Number.isFinite));
  });
}

/**
 * The information-bottleneck bounds of runs, each once: {label, runs, whole, places: [I(X;T), greatest I(T;Y)]} in a unit.
 *
 * A run that came without its curve, as from a CSV, has the line through the bounds that its points recorded: the curve
 * lies above it between them, and `whole` is false.
 */
export function bottlenecksOf(runs, view) {
  const found = new Map();
  for (const run of runs) {
    const made = run.latest((one) => one.bound);
    const unit = made && factor(made.unit, view.unit);
    const places = made ? made.i_xt.map((x, k) => [unit * x, unit * made.i_ty[k]]) : recordedBound(run, view);
    if (places.length < 2) continue;
    const key = JSON.stringify(places);
    const [label, whole] = [made?.label ?? "IB bound at the points", made !== undefined];
    found.set(key, { label, whole, places, runs: [...(found.get(key)?.runs ?? []), run] });
  }
  return [...found.values()];
}

/** The line through the bounds that the points of a run recorded. */
function recordedBound(run, view) {
  const name = [...run.quantities].find((one) => one.endsWith("/I_TY_bound"));
  if (name === undefined) return [];
  const source = name.slice(0, name.indexOf("/"));
  const found = [[0, 0]];
  for (const measurement of run.measurements) {
    for (const layer of measurement.layers) {
      const x = measurement.value(COUNTS, "I_XT", layer, view.unit);
      const y = measurement.value(source, "I_TY_bound", layer, view.unit);
      if (Number.isFinite(x) && Number.isFinite(y)) found.push([x, y]);
    }
  }
  // It rises with I(X;T).
  let greatest = 0;
  return found.sort((a, b) => a[0] - b[0]).map(([x, y]) => [x, (greatest = Math.max(greatest, y))]);
}
