// All values of a point, in words and in a table.

import { COUNTED, COUNTS, factor } from "./runs.js";
import { notation, shown } from "./style.js";
import { verdictOf } from "./verdicts.js";

/** An HTML element. */
export function html(name, attributes = {}, children = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Everything that is known of a layer of one measurement; of a mean, of each of its runs. */
export function detailsOf(track, one, view) {
  if (track.run !== undefined) return [ofMeasurement(track, one.measurement, track.run.name, view)];
  const head = html("p", {}, [
    html("strong", {}, [track.layer]),
    ` · mean of ${one.n} run${one.n === 1 ? "" : "s"}: I(X;T) = ${shown(one.x)} ± ${shown(one.dx)}, `,
    `I(T;Y) = ${shown(one.y)} ± ${shown(one.dy)} ${view.unit} (standard deviation among runs)`,
  ]);
  const runs = track.of.filter((of) => of.places[one.k]);
  return [head, ...runs.map((of) => ofMeasurement(track, of.places[one.k].measurement, of.run.name, view))];
}

function ofMeasurement(track, measurement, run, view) {
  const { layer } = track;
  const records = [...measurement.records(layer)];
  const counted = records.find((record) => COUNTED.includes(record.source));
  const words = measurement.discretized.get(layer) ?? inWords(counted, measurement, layer);
  const lines = [
    html("p", {}, [
      html("strong", {}, [layer]),
      ` · ${run} · epoch ${measurement.epoch}, step ${measurement.step} · N = ${counted?.n ?? records[0]?.n ?? "–"}`,
    ]),
    ...verdictsOf(measurement, records, layer, view),
  ];
  if (words) lines.push(html("p", {}, [`Discretized: ${words}.`]));
  if (counted?.correction) lines.push(html("p", {}, [`Corrected by ${counted.correction}.`]));
  return html("section", {}, [...lines, html("div", { class: "tables" }, tablesOf(records, view))]);
}

/** The verdicts of the sources, a sentence each: of the counts, and of estimators that are flagged or chosen. */
function verdictsOf(measurement, records, layer, view) {
  const sentences = new Map();
  for (const { source, verdict } of records) {
    const counted = COUNTED.includes(source);
    const flagged = verdict !== "" && verdict !== "ok";
    if (!counted && !flagged && source !== view.source) continue;
    if (!sentences.has(source) || flagged) sentences.set(source, verdictOf(measurement, layer, source, verdict));
  }
  const chosenFirst = [...sentences].sort(([a], [b]) => (b === view.source) - (a === view.source));
  return chosenFirst.map(([source, words]) => html("p", {}, [html("span", { class: "verdict" }, [source]), ` · ${words}.`]));
}

/** How a layer was discretized, from its records alone. */
function inWords(counted, measurement, layer) {
  if (counted === undefined) return "";
  const n = measurement.record(counted.source, "n_codes", layer)?.value;
  const explained = measurement.record(counted.source, "explained_variance", layer)?.value;
  const share = Number.isFinite(explained) ? `, with ${(100 * explained).toFixed(0)} % of the variance between them` : "";
  return `${Number.isFinite(n) ? n : ""} ${counted.source === "cells" ? "cells" : "symbols of its bins"}${share}`;
}

/** A table for each source, a long one in two. */
function tablesOf(records, view) {
  const sources = [...new Set(records.map((record) => record.source))];
  return sources.flatMap((source) => {
    const of = records.filter((record) => record.source === source);
    const half = of.length > 8 ? Math.ceil(of.length / 2) : of.length;
    return [of.slice(0, half), of.slice(half)].filter((part) => part.length > 0).map((part) => table(source, part, view));
  });
}

function table(source, records, view) {
  const head = [source, "value", "± s.e.", "unit", ...(COUNTED.includes(source) ? [] : ["N", "verdict"])];
  const rows = records.map((record) => {
    const by = factor(record.unit, view.unit);
    const error = Number.isFinite(record.standardError) ? shown(record.standardError * by) : "";
    const of = COUNTED.includes(source) ? [] : [record.n, record.verdict];
    const cells = [notation(record.quantity), shown(record.value * by), error, record.unit && view.unit, ...of];
    const exact = { "data-quantity": `${source}/${record.quantity}`, "data-value": String(record.value * by) };
    return html("tr", exact, cells.map((cell) => html("td", {}, [String(cell)])));
  });
  return html("table", {}, [
    html("thead", {}, [html("tr", {}, head.map((name) => html("th", { scope: "col" }, [name])))]),
    html("tbody", {}, rows),
  ]);
}

/** The few lines beside a marker: the values drawn, the verdict and its reason, the discretization, N. */
export function tooltipOf(track, one, view, others = []) {
  const run = track.run === undefined ? `mean of ${one.n} runs` : track.run.name;
  const error = (value) => (value > 0 ? ` ± ${shown(track.run === undefined ? value : value / 2)}` : "");
  const { layer } = track;
  const { measurement } = one;
  const counted = measurement.record(COUNTS, "I_XT", layer) ?? measurement.record(COUNTS, "H_T", layer);
  const words = measurement.discretized.get(layer) ?? inWords(counted, measurement, layer);
  const some = track.run === undefined && one.nFlagged > 0 ? `in ${one.nFlagged} of ${one.n} runs ` : "";
  const lines = [
    `I(X;T) ${shown(one.x)}${error(one.dx)}, I(T;Y) ${shown(one.y)}${error(one.dy)} ${view.unit}`,
    some + verdictOf(measurement, layer, one.of ?? view.source, one.verdict),
    words ? `${words}; N = ${counted?.n ?? "–"}` : "",
    one.ended ? `This run ended at epoch ${measurement.epoch}, step ${measurement.step}.` : "",
    others.length > 0 ? `Also here (click): ${others.join(", ")}` : "",
  ];
  return html("div", { class: "tooltip", role: "tooltip" }, [
    html("strong", {}, [`${layer} · ${run}`]),
    ...lines.filter(Boolean).map((line) => html("div", {}, [line])),
  ]);
}
