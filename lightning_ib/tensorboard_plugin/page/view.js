// The choices of the reader, and their form in a link.

import { COUNTS } from "./runs.js";

export const MODES = { overlaid: "overlaid", mean: "mean ± spread", beside: "side by side" };
export const SPEEDS = [0.25, 0.5, 1, 2, 4];
export const THEMES = ["auto", "light", "dark"];

/** The choices of the reader. `hidden…` hold what was switched off, so that what comes later is shown. */
export class View {
  constructor() {
    this.hiddenRuns = new Set();
    this.hiddenLayers = new Set();
    this.source = COUNTS;
    this.target = ""; // the first one
    this.unit = "bits";
    this.clock = "epoch";
    this.mode = "overlaid";
    this.logarithmic = false;
    this.trajectories = true;
    this.errors = true;
    this.speed = 1;
    this.theme = "auto";
    this.extra = "counted/H_T";
    this.time = undefined; // the last one
    this.runNumbers = new Map(); // run → its place among all, for its dashes
    this.given = new Set(); // the choices that a link made
    this.begun = {}; // those that the data made: a link says where the reader took them back
  }

  hasLayer(layer) {
    return !this.hiddenLayers.has(layer);
  }

  /** The view as the part of a link after the #. */
  toHash() {
    const plain = new View();
    const found = new URLSearchParams();
    for (const key of PLAIN) {
      if (this[key] !== plain[key] || this[key] !== (this.begun[key] ?? plain[key])) found.set(key, String(this[key]));
    }
    for (const run of this.hiddenRuns) found.append("without", run);
    for (const layer of this.hiddenLayers) found.append("without-layer", layer);
    return found.toString();
  }

  /** The view of a link; whatever is unknown in it is left out. Returns whether it named a unit. */
  static fromHash(hash) {
    const view = new View();
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    for (const key of PLAIN) {
      const value = given.get(key);
      if (value === null) continue;
      if (typeof view[key] === "boolean") view[key] = value === "true";
      else if (key === "time" || key === "speed") view[key] = Number.isFinite(Number(value)) ? Number(value) : view[key];
      else view[key] = value;
    }
    const plain = new View();
    for (const [key, allowed] of Object.entries(ALLOWED)) if (!allowed.includes(view[key])) view[key] = plain[key];
    view.hiddenRuns = new Set(given.getAll("without"));
    view.hiddenLayers = new Set(given.getAll("without-layer"));
    view.given = new Set(given.keys());
    return view;
  }
}

const ALLOWED = { mode: Object.keys(MODES), unit: ["bits", "nats"], clock: ["epoch", "step"], speed: SPEEDS, theme: THEMES };
const PLAIN = [
  "source", "target", "unit", "clock", "mode", "logarithmic", "trajectories", "errors", "speed", "theme", "extra", "time",
];
