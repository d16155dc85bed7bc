// The controls of the page: every one changes the view and calls back.

import { html } from "./details.js";
import { COUNTS, GRADIENT } from "./runs.js";
import { dashes, notation, shortNames } from "./style.js";
import { svg } from "./svg.js";
import { MODES, SPEEDS, THEMES } from "./view.js";

function checkbox(label, checked, onchange, attributes = {}, mark = undefined, words = label) {
  const box = html("input", { type: "checkbox", checked, onchange: (event) => onchange(event.target.checked), ...attributes });
  return html("label", { class: "choice" }, [box, ...(mark ? [mark] : []), html("span", { title: label }, [words])]);
}

function select(label, id, options, chosen, onchange) {
  const made = options.map(([value, words]) => html("option", { value, selected: value === chosen }, [words]));
  return html("label", { class: "select" }, [
    `${label} `,
    html("select", { id, onchange: (event) => onchange(event.target.value) }, made),
  ]);
}

function button(label, id, onclick, attributes = {}) {
  return html("button", { type: "button", id, onclick, ...attributes }, [label]);
}

/** The bar over the planes: play, slider, moment, speed, and what is drawn. */
export class TimeBar {
  /** @param {object} on {step, play, seek, changed}. */
  constructor(view, on) {
    this.play = button("▶", "play", on.play, { "aria-label": "Play" });
    this.slider = html("input", {
      type: "range", id: "slider", min: 0, max: 1000, step: 1, "aria-label": "Moment of training",
      oninput: (event) => on.seek(Number(event.target.value) / 1000),
      onkeydown: (event) => {
        if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
        const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
        if (by === undefined) return;
        event.preventDefault();
        on.step(by);
      },
    });
    this.moment = html("output", { id: "moment", for: "slider" });
    const speeds = SPEEDS.map((speed) => [String(speed), `${speed} ×`]);
    const set = (key) => (value) => on.changed({ [key]: value });
    this.element = html("div", { class: "bar", role: "toolbar", "aria-label": "Time" }, [
      this.play, this.slider, this.moment,
      select("speed", "speed", speeds, String(view.speed), (value) => on.changed({ speed: Number(value) })),
      checkbox("logarithmic", view.logarithmic, set("logarithmic"), { id: "logarithmic" }),
      checkbox("trajectories", view.trajectories, set("trajectories"), { id: "trajectories" }),
      checkbox("errors", view.errors, set("errors"), { id: "errors" }),
    ]);
  }

  /** Bring the bar to a moment: a share of the way, words, whether it plays. */
  show(share, words, playing, isStill) {
    this.play.disabled = this.slider.disabled = isStill;
    this.slider.value = Math.round(1000 * share);
    this.slider.setAttribute("aria-valuetext", words);
    this.moment.textContent = words;
    this.play.textContent = playing ? "⏸" : "▶";
    this.play.setAttribute("aria-label", playing ? "Pause" : "Play");
  }
}

/** The boxes and lists beside the planes. */
export function sidebar({ runs, layers, colors, content, view, on }) {
  const set = (key) => (value) => on.changed({ [key]: value });
  const toggle = (key, name) => (shown) => {
    const hidden = new Set(view[key]);
    if (shown) hidden.delete(name);
    else hidden.add(name);
    on.changed({ [key]: hidden });
  };
  const swatch = (color, dash) =>
    svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, [
      svg("line", { x1: 1, x2: 21, y1: 5, y2: 5, stroke: color, "stroke-width": 3, "stroke-dasharray": dash }),
    ]);
  const runBoxes = runs.map((run) => {
    const overlaid = runs.length > 1 && view.mode === "overlaid";
    const mark = overlaid ? swatch("currentColor", dashes(view.runNumbers.get(run.name))) : undefined;
    const words = run.name === "." ? "this folder" : run.name;
    return checkbox(run.name, !view.hiddenRuns.has(run.name), toggle("hiddenRuns", run.name), { "data-run": run.name }, mark, words);
  });
  const short = shortNames(layers, 22);
  const layerBoxes = layers.map((layer, k) =>
    checkbox(layer, view.hasLayer(layer), toggle("hiddenLayers", layer), { "data-layer": layer }, swatch(colors.get(layer), ""), short[k]),
  );
  const sources = content.sources.map((source) => [source, source === COUNTS ? "cells, bins" : source]);
  const targets = content.targets.map((target) => [target, target]);
  const units = [["bits", "bits"], ["nats", "nats"]];
  const files = [["svg", "SVG"], ["png", "PNG"], ["csv", "CSV"], ["link", "Copy link"]];
  return [
    group("Runs", [boxes(runBoxes), ...(runs.length > 1 ? [select("show", "mode", Object.entries(MODES), view.mode, set("mode"))] : [])]),
    group("Values", [
      ...(targets.length > 1 ? [select("target", "target", targets, view.target || targets[0][0], set("target"))] : []),
      select("estimator", "source", sources, view.source, set("source")),
      select("unit", "unit", units, view.unit, set("unit")),
      select("time", "clock", [["epoch", "epochs"], ["step", "steps"]], view.clock, set("clock")),
      select("theme", "theme", THEMES.map((name) => [name, name]), view.theme, set("theme")),
    ]),
    group("Save", [html("div", { class: "files" }, files.map(([kind, words]) => button(words, kind, () => on.save(kind))))]),
    group("Layers", [all(view, layers, on), boxes(layerBoxes)]),
  ];
}

function all(view, layers, on) {
  const hidden = layers.every((layer) => !view.hasLayer(layer));
  const names = hidden ? [] : layers;
  return button(hidden ? "all" : "none", "all-layers", () => on.changed({ hiddenLayers: new Set(names) }), { class: "small" });
}

function boxes(children) {
  return html("div", { class: "boxes" }, children);
}

function group(title, children) {
  return html("fieldset", {}, [html("legend", {}, [title]), ...children]);
}

/** The chooser of the fourth chart. */
export function quantityChooser(content, view, on) {
  const name = (one) => {
    const [source, quantity] = one.split("/");
    return `${notation(quantity)}${[COUNTS, GRADIENT].includes(source) ? "" : ` (${source})`}`;
  };
  const options = content.quantities.map((one) => [one, name(one)]);
  return select("third chart", "extra", options, view.extra, (value) => on.changed({ extra: value }));
}
