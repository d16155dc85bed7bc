// Runs and their measurements: what the page knows. A measurement is an object as records/measurement_json.py writes it.

/** The sources that count symbols; every other source is an estimator. */
export const COUNTED = ["cells", "binned"];

/** The name of the source that is "cells" for some layers and "binned" for others. */
export const COUNTS = "counted";

const KNOWN_VERSION = 1;
const LN2 = Math.log(2);

/** One run: its measurements in the order of time, one a moment. */
export class Run {
  /**
   * @param {string} name shown for the run, and its identity.
   * @param {object[]} measurements parsed JSON.
   */
  constructor(name, measurements = []) {
    this.name = name;
    this.measurements = [];
    this.layers = [];
    this.fault = "";
    this.add(measurements);
  }

  /** Take measurements in: a later one replaces that of the same moment, as where a run was resumed. */
  add(measurements) {
    const found = new Map(this.measurements.map((one) => [one.key, one]));
    const layers = new Set(this.layers);
    for (const one of measurements) {
      if (one?.version !== KNOWN_VERSION) {
        const why = one?.version > KNOWN_VERSION ? "was written by a later version: update lightning-ib" : "is no measurement";
        this.fault = `${this.name}: a measurement ${why}.`;
        continue;
      }
      const made = new Measurement(one);
      found.set(made.key, made);
      made.layers.forEach((layer) => layers.add(layer));
    }
    this.measurements = [...found.values()].sort((a, b) => a.epoch - b.epoch || a.step - b.step);
    this.layers = [...layers];
    this.steps = new Set(this.measurements.map((one) => one.epoch)).size < this.measurements.length;
  }

  /** The unit that the run was measured in. */
  get unit() {
    return this.measurements.at(-1)?.unit ?? "bits";
  }

  /** The last measurement at or before a time, or undefined. */
  at(time, clock) {
    let low = 0;
    let high = this.measurements.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.measurements[middle][clock] <= time) low = middle + 1;
      else high = middle;
    }
    return this.measurements[low - 1];
  }
}

/** The records of one moment, by source, quantity and layer. */
class Measurement {
  constructor(made) {
    this.epoch = made.epoch;
    this.step = made.step;
    this.key = made.by === "step" ? `step ${made.step}` : `epoch ${made.epoch}`;
    this.layers = made.layers;
    this.reasons = made.reasons ?? {};
    this.discretized = made.discretized ?? {};
    this.series = new Map(made.series.map((one) => [`${one.source}/${one.quantity}`, one]));
    this.places = new Map(made.layers.map((layer, k) => [layer, k]));
    this.unit = made.series.find((one) => one.unit)?.unit ?? "bits";
  }

  /** The record of a quantity, or undefined: value, standardError (NaN where they are missing), n, verdict, unit. */
  record(source, quantity, layer) {
    if (source === COUNTS) {
      return this.record("cells", quantity, layer) ?? this.record("binned", quantity, layer);
    }
    const series = this.series.get(`${source}/${quantity}`);
    const place = this.places.get(layer);
    if (series === undefined || place === undefined) return undefined;
    const k = series.at === undefined ? place : series.at.indexOf(place);
    if (k < 0) return undefined;
    const cell = (name) => (Array.isArray(series[name]) ? series[name][k] : series[name]);
    return {
      layer,
      source,
      quantity,
      value: number(cell("value")),
      standardError: number(cell("standard_error")),
      n: cell("n_samples") ?? 0,
      verdict: cell("verdict") ?? "",
      correction: cell("correction") ?? "",
      unit: series.unit ?? "",
    };
  }

  /** The value of a quantity in a unit, NaN where it is missing. */
  value(source, quantity, layer, unit) {
    const found = this.record(source, quantity, layer);
    return found === undefined ? NaN : found.value * factor(found.unit, unit);
  }

  /** All records of a layer. */
  *records(layer) {
    for (const { source, quantity } of this.series.values()) {
      const found = this.record(source, quantity, layer);
      if (found !== undefined) yield found;
    }
  }
}

function number(cell) {
  if (cell === null || cell === undefined) return NaN;
  return cell === "inf" ? Infinity : cell === "-inf" ? -Infinity : cell;
}

/** The factor from one unit of information to another; 1 for dimensionless values. */
export function factor(from, to) {
  if (from === to || !from || !to) return 1;
  return from === "nats" ? 1 / LN2 : LN2;
}

/** The names of layers of several runs, in the order that most of them have: as they are reported. */
export function layersOf(runs) {
  const layers = [];
  for (const run of runs) {
    let place = 0;
    for (const layer of run.layers) {
      const known = layers.indexOf(layer);
      if (known >= 0) place = known + 1;
      else layers.splice(place++, 0, layer);
    }
  }
  return layers;
}

/** What can be drawn: sources with an I(T;Y) or I(X;T), and all quantities as "source/quantity". */
export function contentOf(runs) {
  const sources = new Set();
  const quantities = new Set();
  for (const run of runs) {
    for (const measurement of [run.measurements[0], run.measurements.at(-1)]) {
      for (const { source, quantity } of measurement?.series.values() ?? []) {
        const of = COUNTED.includes(source) ? COUNTS : source;
        quantities.add(`${of}/${quantity}`);
        if (quantity === "I_TY" || quantity === "I_XT") sources.add(of);
      }
    }
  }
  return { sources: [...sources], quantities: [...quantities] };
}

/** The moments of several runs, in ascending order. */
export function timesOf(runs, clock) {
  const times = new Set();
  for (const run of runs) for (const measurement of run.measurements) times.add(measurement[clock]);
  return [...times].sort((a, b) => a - b);
}

/** The mean and the standard deviation of finite values; the latter 0 for one value. */
export function meanAndSpread(values) {
  const finite = values.filter(Number.isFinite);
  const mean = finite.reduce((sum, value) => sum + value, 0) / finite.length;
  const squares = finite.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, spread: finite.length > 1 ? Math.sqrt(squares / (finite.length - 1)) : 0, n: finite.length };
}
