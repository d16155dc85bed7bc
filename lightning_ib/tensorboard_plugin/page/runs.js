// Runs and their measurements: what the page knows. A measurement is an object as records/measurement_json.py writes it.

/** The sources that count symbols; every other source is an estimator. */
export const COUNTED = ["cells", "binned"];

/** The source of what gradients and weights say: no place in the plane. */
export const GRADIENT = "gradient";

/** The layer under whose name the gradients of all layers are recorded as a whole. */
export const ALL_LAYERS = "all_layers";

/** The name of the source that is "cells" for some layers and "binned" for others. */
export const COUNTS = "counted";

const KNOWN_VERSION = 2;
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
    this.placed = [];
    this.quantities = new Set(); // as "source/quantity"
    this.targets = []; // by name, where several were measured in one pass
    this.target = undefined; // the chosen one
    this.fault = "";
    this.add(measurements);
  }

  /** Take measurements in: a later one replaces that of the same moment, as where a run was resumed. */
  add(measurements) {
    const found = new Map(this.measurements.map((one) => [one.key, one]));
    const layers = new Set(this.layers);
    for (const one of measurements) {
      const made = measurementOf(one);
      if (made === undefined) {
        const why = one?.version > KNOWN_VERSION ? "was written by a later version: update lightning-ib" : "is incomplete, and is left out";
        this.fault = `${this.name}: a measurement ${why}.`;
        continue;
      }
      const before = found.get(made.key); // of several in one moment the last has all values, and some say more
      if (before !== undefined && made.discretized.size === 0) made.discretized = before.discretized;
      made.boundsBefore(before);
      made.choose(this.target);
      this.targets = [...new Set([...this.targets, ...made.targets])];
      found.set(made.key, made);
      made.layers.forEach((layer) => layers.add(layer));
      for (const { source, quantity } of made.series) this.quantities.add(`${COUNTED.includes(source) ? COUNTS : source}/${quantity}`);
    }
    this.measurements = [...found.values()].sort((a, b) => a.epoch - b.epoch || a.step - b.step);
    const placed = this.measurements.filter((one) => one.series.some(({ source }) => source !== GRADIENT));
    this.placed = placed.length > 0 ? placed : this.measurements; // those that the plane shows
    this.layers = [...layers];
    this.steps = new Set(this.measurements.map((one) => one.epoch)).size < this.measurements.length;
  }

  /** Look at one of several targets; a run without it shows its primary one. */
  choose(target) {
    if (target === this.target) return;
    this.target = target;
    for (const one of this.measurements) one.choose(target);
  }

  /** The unit that the run was measured in. */
  get unit() {
    return this.measurements.at(-1)?.unit ?? "bits";
  }

  /** The moment of the last measurement. */
  end(clock) {
    return this.measurements.at(-1)?.[clock] ?? -Infinity;
  }

  /** What a function finds in the latest measurement where it finds something, or undefined. */
  latest(find) {
    for (let k = this.measurements.length - 1; k >= 0; k--) {
      const found = find(this.measurements[k]);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The last measurement for the plane at or before a time, or undefined. */
  at(time, clock) {
    let low = 0;
    let high = this.placed.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.placed[middle][clock] <= time) low = middle + 1;
      else high = middle;
    }
    return this.placed[low - 1];
  }
}

/** A measurement from JSON, or undefined where it is none. */
function measurementOf(made) {
  try {
    return made.version >= 1 && made.version <= KNOWN_VERSION && Number.isFinite(made.epoch) && Number.isFinite(made.step) ? new Measurement(made) : undefined;
  } catch {
    return undefined;
  }
}

/** The records of one moment, by source, quantity and layer; of several targets those of the chosen one. */
class Measurement {
  constructor(made) {
    this.epoch = made.epoch;
    this.step = made.step;
    this.key = made.by === "step" ? `step ${made.step}` : `epoch ${made.epoch}`;
    this.layers = made.layers;
    this.targets = made.targets ?? [];
    // Target → why layers are flagged, and the information-bottleneck curve, where it changed.
    this.about = { ...made.about, [this.targets[0] ?? ""]: { reasons: made.reasons, bound: made.bound } };
    this.discretized = new Map(Object.entries(made.discretized ?? {}));
    this.series = [...made.series];
    this.places = new Map(made.layers.map((layer, k) => [layer, k]));
    this.unit = made.series.find((one) => one.unit)?.unit ?? "bits";
    this.choose(undefined);
  }

  /** Look at one of several targets: the primary one where this is none of them. */
  choose(target) {
    this.target = this.targets.includes(target) ? target : this.targets[0] ?? "";
    const { reasons, bound } = this.about[this.target] ?? {};
    this.reasons = new Map(Object.entries(reasons ?? {}));
    this.bound = bound;
    this.named = new Map(); // several of one name where layers differ in unit
    for (const one of this.series) {
      const name = `${one.source}/${one.quantity}`;
      if (!one.target || one.target === this.target) this.named.set(name, [...(this.named.get(name) ?? []), one]);
    }
  }

  /** Take over the curves of the measurement of the same moment that came before, where this one has none. */
  boundsBefore(before) {
    for (const [target, parts] of Object.entries(before?.about ?? {})) {
      if (parts.bound) this.about[target] = { ...this.about[target], bound: this.about[target]?.bound ?? parts.bound };
    }
  }

  /** The record of a quantity, or undefined: value, standardError (NaN where they are missing), n, verdict, unit. */
  record(source, quantity, layer) {
    if (source === COUNTS) {
      return this.record("cells", quantity, layer) ?? this.record("binned", quantity, layer);
    }
    const place = this.places.get(layer);
    if (place === undefined) return undefined;
    for (const series of this.named.get(`${source}/${quantity}`) ?? []) {
      const k = series.at === undefined ? place : series.at.indexOf(place);
      if (k >= 0) return this.#recordOf(series, layer, k);
    }
    return undefined;
  }

  #recordOf(series, layer, k) {
    const { source, quantity } = series;
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
      target: series.target ?? "",
    };
  }

  /** The value of a quantity in a unit, NaN where it is missing. */
  value(source, quantity, layer, unit) {
    const found = this.record(source, quantity, layer);
    return found === undefined ? NaN : found.value * factor(found.unit, unit);
  }

  /** All records of a layer, about every target. */
  *everyRecord(layer) {
    const place = this.places.get(layer);
    for (const series of this.series) {
      const k = series.at === undefined ? place : series.at.indexOf(place);
      if (k >= 0) yield this.#recordOf(series, layer, k);
    }
  }

  /** All records of a layer, about the chosen target or none. */
  *records(layer) {
    for (const name of this.named.keys()) {
      const cut = name.indexOf("/");
      const [source, quantity] = [name.slice(0, cut), name.slice(cut + 1)];
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
    let place = layers.length; // after the others, until one is known
    for (const layer of run.layers) {
      const known = layers.indexOf(layer);
      if (known >= 0) place = known + 1;
      else layers.splice(place++, 0, layer);
    }
  }
  return layers;
}

/** What can be drawn: sources with an I(T;Y) or I(X;T), all quantities as "source/quantity", and targets by name. */
export function contentOf(runs) {
  const sources = new Set();
  const quantities = new Set();
  for (const run of runs) {
    for (const name of run.quantities) {
      quantities.add(name);
      const [source, quantity] = name.split("/");
      if (quantity === "I_TY" || quantity === "I_XT") sources.add(source);
    }
  }
  const targets = [...new Set(runs.flatMap((run) => run.targets))];
  return { sources: [...sources], quantities: [...quantities], targets };
}

/** The moments of several runs, in ascending order. */
export function timesOf(runs, clock) {
  const times = new Set();
  for (const run of runs) for (const measurement of run.measurements) times.add(measurement[clock]);
  return [...times].sort((a, b) => a - b);
}

/** Whether more than half of the moments lie in the first quarter of the time, as those in equal ratios do. */
export function areMostlyEarly(times) {
  const first = times[0] ?? 0;
  return times.length > 4 && times[Math.floor(times.length / 2)] - first < (times.at(-1) - first) / 4;
}

/** The mean and the standard deviation of finite values; the latter 0 for one value. */
export function meanAndSpread(values) {
  const finite = values.filter(Number.isFinite);
  const mean = finite.reduce((sum, value) => sum + value, 0) / finite.length;
  const squares = finite.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, spread: finite.length > 1 ? Math.sqrt(squares / (finite.length - 1)) : 0, n: finite.length };
}
