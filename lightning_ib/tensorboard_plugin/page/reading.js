// "How to read this": the plane in a few sentences, without a network.

import { html } from "./details.js";
import { svg } from "./svg.js";
import { markerPath } from "./style.js";
import { OF_ESTIMATORS, VERDICTS } from "./verdicts.js";

const SENTENCES = [
  ["Up, I(T;Y)", "information that the layer carries about the target. It rises where classes become separable; H(Y) is its bound."],
  ["Right, I(X;T)", "information that it carries about the input, at the resolution of the discretization. A fall is compression at that resolution; for a deterministic network the value without any resolution is infinite."],
  ["Dashed lines", "the bounds H(Y) of I(T;Y) and H(X) of I(X;T), named with an arrow where they are far."],
  ["Path", "one layer from the first measurement to the moment on the slider. Layers go from dark (first) to light (last); runs that are overlaid differ in their dashes, and a run that has ended is pale."],
  ["Dash", "the mean of I(T;Y) under permuted labels (a triangle at the edge where it lies below). A point on its dash is no evidence of label information."],
  ["Dotted line", "Fano’s bound: the least I(T;Y) that the accuracy of the network proves of every layer that its predictions pass through."],
  ["Ellipse or bar", "two standard errors to either side, as the band around a line of a chart; of a mean over runs, one standard deviation among them."],
  ["Solid curve", "where it was asked for, the information-bottleneck bound: the largest I(T;Y) that a representation with this I(X;T) can have, for the distribution named beside it."],
];

const OTHERS = Object.entries(OF_ESTIMATORS).filter(([verdict]) => !Object.hasOwn(VERDICTS, verdict));

/** The section, closed at first. */
export function howToRead(colors) {
  const terms = SENTENCES.flatMap(([term, words]) => [html("dt", {}, [term]), html("dd", {}, [words])]);
  const flags = [...Object.entries(VERDICTS), ...OTHERS].map(([verdict, words]) => {
    const mark = svg("svg", { width: 18, height: 18, viewBox: "-9 -9 18 18", "aria-hidden": "true" }, [
      svg("path", { d: markerPath(verdict, 6), fill: "none", stroke: colors.ink, "stroke-width": 1.6 }),
    ]);
    return html("li", {}, [mark, html("span", {}, [`${verdict}: ${words}`])]);
  });
  return html("details", { class: "reading" }, [
    html("summary", {}, ["How to read this"]),
    html("dl", {}, terms),
    html("p", {}, ["A filled disc is sound. Hollow markers are flagged as unreliable:"]),
    html("ul", {}, flags),
    html("p", {}, [
      "Keys: Space plays, ← and → step through the measurements. Tab reaches a plane: the arrows then go from point to " +
        "point, Page Up and Page Down through time. A click on a chart goes to that moment, the pointer on the name of a " +
        "run sets that run apart.",
    ]),
  ]);
}
