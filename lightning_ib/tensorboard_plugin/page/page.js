// The page: planes, charts, details and controls around one view.

import { Chart, onAxis } from "./charts.js";
import { quantityChooser, sidebar, TimeBar } from "./controls.js";
import { detailsOf, html, tooltipOf } from "./details.js";
import { csv, download, png, svgText, together } from "./exports.js";
import { domainOf, Plane } from "./plane.js";
import { howToRead } from "./reading.js";
import { ALL_LAYERS, COUNTS, areMostlyEarly, contentOf, layersOf, timesOf } from "./runs.js";
import { dashes, depthColors, palette } from "./style.js";
import { boundsOf, tracksOf } from "./tracks.js";
import { View } from "./view.js";

const PLAY_SECONDS = { least: 4, most: 20, aMeasurement: 0.6 };
const MANY_RUNS = 6; // more are shown as their mean at first
const UNDER_POINTER = 7; // pixels

export class Page {
  /**
   * @param {HTMLElement} root the element to fill.
   * @param {string} hash the view to begin with.
   * @param {(hash: string) => string} link the address that restores a view.
   */
  constructor(root, hash, link) {
    this.root = root;
    this.link = link;
    this.view = View.fromHash(hash);
    this.runs = [];
    this.k = 0;
    this.playing = undefined; // the share of the way, while it plays
    this.chosen = undefined;
    this.faults = html("p", { class: "faults", role: "status" });
    this.note = html("p", { class: "faults", role: "status" });
    this.side = html("aside", { "aria-label": "Choices" });
    this.planes = html("div", { class: "planes" });
    this.chooser = html("div", { class: "chooser" });
    this.charts = html("div", { class: "charts" });
    this.details = html("div", { class: "details" });
    this.reading = html("div", {});
    this.bar = new TimeBar(this.view, {
      play: () => this.play(), step: (by) => this.goTo(this.k + by), seek: (share) => this.goTo(this.#momentOf(share)),
      changed: (change) => this.change(change),
    });
    const right = html("div", { class: "right" }, [this.charts, this.chooser]);
    const pictures = html("div", { class: "pictures" }, [this.planes, right]);
    const middle = html("div", { class: "middle" }, [this.bar.element, pictures, this.details, this.reading]);
    root.replaceChildren(this.faults, this.note, this.side, middle);
    this.#listen();
  }

  #listen() {
    const { planes } = this;
    planes.addEventListener("pointerover", (event) => this.#point(event));
    planes.addEventListener("click", (event) => this.#point(event, true));
    planes.addEventListener("focusin", (event) => this.#choose(event.target));
    for (const kind of ["pointerout", "focusout"]) planes.addEventListener(kind, () => this.tooltip?.remove());
    planes.addEventListener("keydown", (event) => this.#walk(event));
    this.side.addEventListener("pointerover", (event) => this.#setApart(event.target.closest("label")?.querySelector("[data-run]")?.dataset.run));
    this.side.addEventListener("pointerleave", () => this.#setApart(undefined));
    document.addEventListener("keydown", (event) => this.#key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    const around = boardAround();
    if (around) new MutationObserver(() => this.draw()).observe(around, { attributeFilter: ["class"] });
    let waiting;
    new ResizeObserver(() => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.#room() !== this.drawnFor && this.draw(), 100);
    }).observe(this.root);
  }

  #key(event) {
    if (isShortcut(event) || event.defaultPrevented || event.target.closest("input, select, textarea")) return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by !== undefined) this.goTo(this.k + by);
    else if (event.key === " " && !event.target.closest("button, summary, a")) event.repeat || this.play();
    else return;
    event.preventDefault();
  }

  /** Show these runs, and stay at the last moment if that is where the page was. */
  setRuns(runs) {
    const first = this.runs.length === 0;
    this.runs = runs;
    if (first && runs.length > 0) this.#begin();
    this.draw();
  }

  /** What depends on the data: the unit, the clock and its axis, the source, the chart of gradients. */
  #begin() {
    const { view, runs } = this;
    if (!view.given.has("unit")) view.unit = runs[0].unit;
    if (!view.given.has("clock") && runs.some((run) => run.steps)) view.clock = "step";
    if (!view.given.has("logarithmic")) view.logarithmic = areMostlyEarly(timesOf(runs, view.clock));
    this.bar.element.querySelector("#logarithmic").checked = view.logarithmic;
    if (!view.given.has("mode") && runs.length > MANY_RUNS) view.mode = "mean";
    const { sources, quantities } = contentOf(runs);
    if (!sources.includes(view.source)) view.source = sources[0] ?? COUNTS;
    const snr = quantities.find((name) => name.endsWith("/grad_snr"));
    if (!view.given.has("extra") && snr !== undefined) view.extra = snr;
    view.begun = { clock: view.clock, logarithmic: view.logarithmic };
  }

  change(change) {
    const { view, times, k } = this;
    if (change.clock !== undefined && change.clock !== view.clock && view.time !== undefined) {
      const now = this.shown.map((run) => run.at(times[k], view.clock)).find(Boolean);
      change = { ...change, time: now?.[change.clock] };
    }
    Object.assign(view, change);
    this.#keep();
    this.draw();
  }

  /** Keep the view in the address of this page, soon. */
  #keep() {
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => {
      try {
        history.replaceState(null, "", `#${this.view.toHash()}`);
      } catch {
        // a frame whose address is not its own
      }
    }, 200);
  }

  get isDark() {
    if (this.view.theme !== "auto") return this.view.theme === "dark";
    return boardAround()?.classList.contains("dark-mode") ?? matchMedia("(prefers-color-scheme: dark)").matches;
  }

  /** Draw all anew: the runs, the view or the room changed. */
  draw() {
    const { view } = this;
    const focus = this.#focused();
    this.faults.textContent = this.runs.map((run) => run.fault).filter(Boolean).join(" ");
    this.colors = palette(this.isDark);
    this.root.dataset.theme = this.isDark ? "dark" : "light";
    view.runNumbers = new Map(this.runs.map((run, k) => [run.name, k]));
    const runs = this.runs.filter((run) => !view.hiddenRuns.has(run.name) && run.measurements.length > 0);
    const layers = layersOf(this.runs);
    const shades = depthColors(layers.filter((layer) => layer !== ALL_LAYERS).length, this.isDark);
    this.layerColors = new Map(layers.map((layer) => [layer, layer === ALL_LAYERS ? this.colors.ink : shades.shift()]));
    const content = contentOf(this.runs);
    if (!content.targets.includes(view.target)) view.target = "";
    for (const run of this.runs) run.choose(view.target || content.targets[0]);
    if (!content.quantities.includes(view.extra)) view.extra = content.quantities.find((name) => name.endsWith("H_T")) ?? content.quantities[0];
    this.#drawControls(layers, content);
    const before = this.times?.at(-1) === this.times?.[this.k] ? undefined : this.times?.[this.k];
    this.times = timesOf(runs, view.clock);
    this.shown = runs;
    this.#drawPlanes(runs, content);
    this.#drawCharts(runs, content);
    this.drawnFor = this.#room();
    const sameClock = this.drawnClock === view.clock;
    this.drawnClock = view.clock;
    const time = view.time ?? (sameClock ? before : undefined);
    this.show(time === undefined ? this.times.length - 1 : this.#momentAt(time));
    if (focus) this.root.querySelector(focus)?.focus({ preventScroll: true });
  }

  /** A selector of the focused element, for its successor after a redraw. */
  #focused() {
    const one = document.activeElement;
    if (!this.root.contains(one) || one === this.root) return undefined;
    if (one.id) return `#${CSS.escape(one.id)}`;
    const { run, layer } = one.dataset;
    if (one.matches(".point")) return `.point[data-layer="${CSS.escape(layer)}"][data-run="${CSS.escape(run)}"]`;
    if (run !== undefined) return `input[data-run="${CSS.escape(run)}"]`;
    return layer === undefined ? undefined : `input[data-layer="${CSS.escape(layer)}"]`;
  }

  /** The boxes and lists, where they changed: an open list stays open while measurements come in. */
  #drawControls(layers, content) {
    const { runs, view, layerColors: colors } = this;
    const names = runs.map((run) => run.name);
    const hidden = [[...view.hiddenRuns], [...view.hiddenLayers]];
    const { source, target, unit, clock, mode, theme, extra } = view;
    const drawn = JSON.stringify([names, layers, content, hidden, source, target, unit, clock, mode, theme, extra, this.isDark]);
    if (drawn === this.drawnControls) return;
    this.drawnControls = drawn;
    const on = { changed: (change) => this.change(change), save: (kind) => this.save(kind) };
    const scrolled = [...this.side.querySelectorAll(".boxes")].map((one) => one.scrollTop);
    this.side.replaceChildren(...sidebar({ runs, layers, colors, content, view, on }));
    this.side.querySelectorAll(".boxes").forEach((one, k) => (one.scrollTop = scrolled[k] ?? 0));
    this.chooser.replaceChildren(quantityChooser(content, view, on));
    const open = this.reading.querySelector("details")?.open ?? false;
    this.reading.replaceChildren(howToRead(this.colors));
    this.reading.firstChild.open = open;
  }

  /** The width of the planes. */
  #room() {
    return Math.max(260, Math.floor(this.planes.clientWidth || 560));
  }

  #drawPlanes(runs, content) {
    const { view, colors, times, layerColors } = this;
    const beside = view.mode === "beside" && runs.length > 1;
    const groups = beside ? runs.map((run) => [run]) : [runs];
    const tracks = groups.map((group) => tracksOf(group, view, times, layerColors));
    const domain = domainOf(tracks.flat(), boundsOf(runs, view.unit), view.errors);
    const room = this.#room();
    const width = beside && room > 500 ? Math.floor(room / 2) - 6 : room;
    const height = Math.round(Math.min(beside ? 340 : 560, 0.86 * width));
    const ownSource = view.source !== COUNTS;
    const [hasX, hasY] = ["I_XT", "I_TY"].map((quantity) => content.quantities.includes(`${view.source}/${quantity}`));
    this.drawn = groups.map((group, k) => {
      const names = group.length === 1 ? group[0].name : `${view.mode === "mean" ? "mean of " : ""}${group.length} runs`;
      const target = content.targets.length > 0 ? ` · ${view.target || content.targets[0]}` : "";
      const title = group.length === 0 ? "" : `${names}${target}${ownSource ? ` · ${view.source}` : ""}`;
      const setting = { runs: group, view, colors, width, height, title, times, whyEmpty: this.#whyEmpty(group) };
      return new Plane(tracks[k], domain, ownSource ? { ...setting, hasX, hasY } : setting);
    });
    this.planes.replaceChildren(...this.drawn.map((plane) => plane.element));
  }

  #whyEmpty(runs) {
    const { view } = this;
    if (runs.length === 0) return this.runs.every((run) => run.measurements.length === 0) ? "There are no measurements." : "No run is chosen.";
    const layers = runs.flatMap((run) => run.layers);
    if (layers.length > 0 && !layers.some((layer) => view.hasLayer(layer))) return "No layer is chosen.";
    const ofX = runs.some((run) => run.latest((one) => one.layers.some((layer) => Number.isFinite(one.value(COUNTS, "I_XT", layer, view.unit))) || undefined));
    return ofX ? "I(T;Y) was not measured, as without a target: I(X;T) is at the right." : "No layer has a finite I(X;T) and I(T;Y) here.";
  }

  #drawCharts(runs, content) {
    const { view, colors, times, layerColors } = this;
    const width = Math.max(240, Math.floor(this.charts.clientWidth || 360));
    const onPick = (k) => this.goTo(k);
    const setting = { runs, view, colors, layerColors, times, width, height: 176, onPick };
    const sourceOf = (quantity) => (content.quantities.includes(`${view.source}/${quantity}`) ? view.source : COUNTS);
    const names = [`${sourceOf("I_XT")}/I_XT`, `${sourceOf("I_TY")}/I_TY`, view.extra].filter((name) => name !== undefined);
    this.drawnCharts = names.map((name) => new Chart(name, setting));
    this.charts.replaceChildren(...this.drawnCharts.map((chart) => chart.element));
  }

  // -- time ------------------------------------------------------------------------------------------------------------

  /** Go to the moment with index k, as the reader wants it: play goes on from there. */
  goTo(k) {
    this.show(k);
    if (this.playing !== undefined) this.playing = this.#share(this.k);
    this.#keep();
  }

  /** Show the moment with index k. */
  show(k) {
    const { times, view } = this;
    this.k = Math.max(0, Math.min(k, times.length - 1));
    const focused = this.planes.contains(document.activeElement);
    for (const plane of this.drawn) plane.show(this.k);
    for (const chart of this.drawnCharts) chart.show(this.k);
    // Before there are runs, the moment of a link waits.
    if (times.length > 0) view.time = this.k === times.length - 1 ? undefined : times[this.k];
    const words = times.length === 0 ? "nothing is shown" : `${view.clock} ${times[this.k]}`;
    this.bar.show(this.#share(this.k), words, this.playing !== undefined, times.length < 2);
    this.#showDetails();
    if (focused) this.planes.querySelector(".point[tabindex='0']")?.focus({ preventScroll: true });
  }

  #share(k) {
    const [first, last, now] = [0, this.times.length - 1, k].map((one) => onAxis(this.times[one] ?? 0, this.view.logarithmic));
    return last > first ? (now - first) / (last - first) : 1;
  }

  /** The index of the moment at a share of the way between the first and the last. */
  #momentOf(share) {
    const { logarithmic } = this.view;
    const [first, last] = [this.times[0] ?? 0, this.times.at(-1) ?? 0].map((time) => onAxis(time, logarithmic));
    const place = first + share * (last - first);
    return this.#momentAt(logarithmic ? Math.expm1(place) : place);
  }

  /** The index of the moment nearest to a time. */
  #momentAt(time) {
    let best = 0;
    this.times.forEach((one, k) => {
      if (Math.abs(one - time) < Math.abs(this.times[best] - time)) best = k;
    });
    return best;
  }

  /** Play from here, or from the start if this is the end; or stop. */
  play() {
    const token = (this.player = {});
    if (this.playing !== undefined || this.times.length < 2) {
      this.playing = undefined;
      this.goTo(this.k);
      return;
    }
    this.playing = this.k >= this.times.length - 1 ? 0 : this.#share(this.k);
    const { least, most, aMeasurement } = PLAY_SECONDS;
    let last = performance.now();
    const next = (now) => {
      if (this.player !== token || this.playing === undefined) return;
      const seconds = Math.min(most, Math.max(least, aMeasurement * this.times.length)) / this.view.speed;
      const share = Math.min(1, this.playing + Math.max(0, now - last) / 1000 / seconds);
      last = now;
      this.playing = share < 1 ? share : undefined;
      this.show(this.#momentOf(share));
      if (share < 1) requestAnimationFrame(next);
      else this.#keep();
    };
    this.show(this.#momentOf(this.playing));
    requestAnimationFrame(next);
  }

  // -- one point ------------------------------------------------------------------------------------------------------

  #points() {
    return this.drawn.flatMap((plane) => plane.points ?? []);
  }

  /** Choose the point under the pointer; a click goes on to the next of several that lie there. */
  #point(event, isClick = false) {
    if (!event.target.classList?.contains("point")) return;
    this.near = this.#points().filter(({ element }) => {
      const box = element.getBoundingClientRect();
      return Math.hypot((box.left + box.right) / 2 - event.clientX, (box.top + box.bottom) / 2 - event.clientY) < UNDER_POINTER;
    }).map(({ element }) => element.dataset);
    const here = this.near.findIndex((one) => this.#isChosen(one));
    if (isClick && this.near.length > 0) this.#choose({ dataset: this.near[(here + 1) % this.near.length] });
    else if (here < 0 || this.near.length === 0) this.#choose(event.target);
    else this.#showDetails();
  }

  #isChosen({ layer, run }) {
    return layer === this.chosen?.layer && run === this.chosen.run;
  }

  #choose({ dataset }) {
    if (dataset?.layer === undefined) return;
    this.chosen = { layer: dataset.layer, run: dataset.run };
    this.#showDetails();
  }

  #showDetails() {
    this.tooltip?.remove();
    const points = this.#points();
    const isChosen = ({ element }) => this.#isChosen(element.dataset);
    const found = points.find(isChosen);
    for (const point of points) point.element.setAttribute("tabindex", point === (found ?? points[0]) ? 0 : -1);
    if (found === undefined) {
      this.detailed = undefined;
      this.details.replaceChildren(html("p", { class: "hint" }, ["Point at a marker, or Tab to it, for all its values."]));
      return;
    }
    this.drawn.forEach((plane) => plane.choose(isChosen));
    const detailed = [found.one.measurement, found.track.layer, found.track.run, this.view.unit, this.view.source, this.view.target];
    if (found.track.run === undefined || !detailed.every((part, k) => part === this.detailed?.[k])) {
      this.details.replaceChildren(...detailsOf(found.track, found.one, this.view));
    }
    this.detailed = detailed;
    this.#showTooltip(found);
  }

  /** A few lines beside the chosen marker, while the pointer or the focus is on it. */
  #showTooltip({ track, one, element }) {
    const near = (this.near ?? []).filter((other) => !this.#isChosen(other));
    const isNear = near.length > 0 && this.#points().some((other) => other.element.matches(":hover"));
    if (!element.matches(":hover, :focus") && !isNear) return;
    const others = isNear ? near.map(({ layer, run }) => (this.shown.length > 1 && run ? `${layer} (${run})` : layer)) : [];
    this.tooltip = tooltipOf(track, one, this.view, others);
    this.root.append(this.tooltip);
    const [mark, frame, size] = [element, this.root, this.tooltip].map((of) => of.getBoundingClientRect());
    const left = Math.min(mark.right + 8, frame.right - size.width - 8) - frame.left;
    const top = mark.top - frame.top - size.height - 6;
    Object.assign(this.tooltip.style, { left: `${left}px`, top: `${top < 0 ? mark.bottom - frame.top + 6 : top}px` });
  }

  /** From point to point with the arrow keys, and through time with Page Up and Page Down. */
  #walk(event) {
    if (isShortcut(event)) return;
    const points = this.#points();
    const here = points.findIndex(({ element }) => element === document.activeElement);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (here < 0 || (by === undefined && event.key !== "PageUp" && event.key !== "PageDown")) return;
    event.preventDefault();
    this.near = [];
    if (by === undefined) this.goTo(this.k + (event.key === "PageUp" ? -1 : 1));
    else points[(here + by + points.length) % points.length].element.focus();
  }

  /** Draw one run strongly and the others faintly; all alike for undefined. */
  #setApart(run) {
    for (const one of this.root.querySelectorAll(".pictures [data-run]")) {
      one.style.opacity = run === undefined || one.dataset.run === run || one.dataset.run === "" ? "" : 0.1;
    }
  }

  // -- what the reader takes along -------------------------------------------------------------------------------------

  async save(kind) {
    const { view, shown, drawn, drawnCharts } = this;
    const name = `information_plane_${view.clock}_${this.times[this.k] ?? 0}`;
    const overlaid = view.mode === "overlaid" && shown.length > 1;
    const legend = {
      layers: [...this.layerColors].filter(([layer]) => view.hasLayer(layer)),
      runs: overlaid ? shown.map((run) => [run.name, dashes(view.runNumbers.get(run.name))]) : [],
      colors: this.colors,
    };
    const seen = () => together(drawn.map((one) => one.picture()), drawnCharts.map((one) => one.picture()), legend);
    try {
      if (kind === "svg") download(svgText(seen()), `${name}.svg`, "image/svg+xml");
      if (kind === "png") download(await png(seen()), `${name}.png`, "image/png");
      if (kind === "csv") download(csv(shown, (layer) => view.hasLayer(layer)), "information_plane.csv", "text/csv");
      if (kind === "link") await this.#copy(this.link(view.toHash()));
    } catch (error) {
      this.note.textContent = `This could not be saved: ${error.message}.`;
    }
  }

  async #copy(address) {
    try {
      await navigator.clipboard.writeText(address);
      this.note.textContent = "The link is in the clipboard.";
    } catch { // not allowed in this frame: show it instead
      this.note.replaceChildren("This link restores the view: ", html("a", { href: address, id: "address" }, [address]));
    }
  }
}

/** Whether a key is pressed together with one that makes it the browser's. */
function isShortcut(event) {
  return event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
}

/** The body of TensorBoard's own page around this frame, or undefined. */
function boardAround() {
  try {
    return window.parent === window ? undefined : window.parent.document.querySelector("body");
  } catch {
    return undefined; // a page of somebody else's
  }
}
