// The page: planes, charts, details and controls around one view.

import { Chart, onAxis } from "./charts.js";
import { quantityChooser, sidebar, TimeBar } from "./controls.js";
import { detailsOf, html, tooltipOf } from "./details.js";
import { csv, download, png, svgText, together } from "./exports.js";
import { domainOf, Plane } from "./plane.js";
import { howToRead } from "./reading.js";
import { COUNTS, contentOf, layersOf, timesOf } from "./runs.js";
import { depthColors, palette } from "./style.js";
import { boundsOf, tracksOf } from "./tracks.js";
import { View } from "./view.js";

const PLAY_SECONDS = { least: 4, most: 20, aMeasurement: 0.6 };

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
    this.playing = false;
    this.chosen = undefined;
    this.faults = html("p", { class: "faults", role: "status" });
    this.side = html("aside", { "aria-label": "Choices" });
    this.planes = html("div", { class: "planes" });
    this.chooser = html("div", { class: "chooser" });
    this.charts = html("div", { class: "charts" });
    this.details = html("div", { class: "details", "aria-live": "polite" });
    this.reading = html("div", {});
    this.bar = new TimeBar(this.view, {
      play: () => this.play(!this.playing), step: (by) => this.show(this.k + by), seek: (share) => this.seek(share),
      changed: (change) => this.change(change),
    });
    const right = html("div", { class: "right" }, [this.charts, this.chooser]);
    const middle = html("div", { class: "middle" }, [this.bar.element, html("div", { class: "pictures" }, [this.planes, right]), this.details, this.reading]);
    root.replaceChildren(this.faults, this.side, middle);
    this.#listen();
  }

  #listen() {
    this.planes.addEventListener("pointerover", (event) => this.#choose(event.target));
    this.planes.addEventListener("focusin", (event) => this.#choose(event.target));
    for (const kind of ["pointerout", "focusout"]) this.planes.addEventListener(kind, () => this.tooltip?.remove());
    this.planes.addEventListener("keydown", (event) => this.#walk(event));
    document.addEventListener("keydown", (event) => {
      if (event.target.closest("input, select, button, summary, .planes")) return;
      if (event.key === " ") this.play(!this.playing);
      else if (event.key === "ArrowRight") this.show(this.k + 1);
      else if (event.key === "ArrowLeft") this.show(this.k - 1);
      else return;
      event.preventDefault();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    let waiting;
    new ResizeObserver(() => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.#room() !== this.drawnFor && this.draw(), 100);
    }).observe(this.root);
  }

  /** Show these runs, and stay at the last moment if that is where the page was. */
  setRuns(runs) {
    const first = this.runs.length === 0;
    this.runs = runs;
    if (first && runs.length > 0) this.#begin();
    this.draw();
  }

  /** What depends on the data: the unit and the source that were measured. */
  #begin() {
    const { view } = this;
    if (!view.given?.has("unit")) view.unit = this.runs[0].unit;
    if (!view.given?.has("clock") && this.runs.some((run) => run.steps)) view.clock = "step";
    const { sources, quantities } = contentOf(this.runs);
    if (!sources.includes(view.source)) view.source = sources[0] ?? COUNTS;
    const snr = quantities.find((name) => name.endsWith("/grad_snr"));
    if (!view.given?.has("extra") && snr !== undefined) view.extra = snr;
  }

  change(change) {
    Object.assign(this.view, change);
    this.#keep();
    this.draw();
  }

  #keep() {
    try {
      history.replaceState(null, "", `#${this.view.toHash()}`);
    } catch {
      // a frame whose address is not its own
    }
  }

  get isDark() {
    if (this.view.theme !== "auto") return this.view.theme === "dark";
    try { // TensorBoard's own dark mode, of the page around this one
      if (window.parent !== window && window.parent.document.body.classList.contains("dark-mode")) return true;
    } catch {
      // a page of somebody else's around this one
    }
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }

  /** Draw all anew: the runs, the view or the room changed. */
  draw() {
    const { view } = this;
    this.faults.textContent = this.runs.map((run) => run.fault).filter(Boolean).join(" ");
    this.colors = palette(this.isDark);
    this.root.dataset.theme = this.isDark ? "dark" : "light";
    const runs = this.runs.filter((run) => !view.hiddenRuns.has(run.name) && run.measurements.length > 0);
    const layers = layersOf(this.runs);
    const shades = depthColors(layers.length, this.isDark);
    const layerColors = new Map(layers.map((layer, k) => [layer, shades[k]]));
    const content = contentOf(this.runs);
    const on = { changed: (change) => this.change(change), save: (kind) => this.save(kind) };
    const focus = this.root.contains(document.activeElement) ? document.activeElement.id : "";
    this.side.replaceChildren(...sidebar({ runs: this.runs, shownRuns: runs, layers, colors: layerColors, content, view, on }));
    const before = this.times?.at(-1) === this.times?.[this.k] ? undefined : this.times?.[this.k];
    this.times = timesOf(runs, view.clock);
    this.shown = runs;
    this.#drawPlanes(runs, layerColors);
    this.#drawCharts(runs, layerColors, content, on);
    const open = this.reading.querySelector("details")?.open;
    this.reading.replaceChildren(howToRead(this.colors));
    this.reading.firstChild.open = open ?? false;
    this.drawnFor = this.#room();
    const time = view.time ?? before;
    this.show(time === undefined ? this.times.length - 1 : this.#momentAt(time));
    if (focus) document.getElementById(focus)?.focus();
  }

  /** The width of the planes. */
  #room() {
    return Math.max(320, Math.floor(this.planes.clientWidth || 560));
  }

  #drawPlanes(runs, layerColors) {
    const { view, colors, times } = this;
    const beside = view.mode === "beside" && runs.length > 1;
    const groups = beside ? runs.map((run) => [run]) : [runs];
    const tracks = groups.map((group) => tracksOf(group, view, times, layerColors));
    const domain = domainOf(tracks.flat(), boundsOf(runs, view.unit), view.errors);
    const room = this.#room();
    const width = beside ? Math.max(300, Math.floor(room / 2) - 6) : room;
    const height = Math.round(Math.min(beside ? 340 : 560, 0.86 * width));
    this.drawn = groups.map((group, k) => {
      const names = group.length === 1 ? group[0].name : `${view.mode === "mean" ? "mean of " : ""}${group.length} runs`;
      const source = view.source === COUNTS ? "" : ` · ${view.source}`;
      const setting = { runs: group, view, colors, width, height, title: `${names}${source}`, times };
      return new Plane(tracks[k], domain, setting);
    });
    this.planes.replaceChildren(...this.drawn.map((plane) => plane.element));
  }

  #drawCharts(runs, layerColors, content, on) {
    const { view, colors, times } = this;
    if (!content.quantities.includes(view.extra)) view.extra = content.quantities.find((name) => name.endsWith("H_T")) ?? content.quantities[0];
    const width = Math.max(280, Math.floor(this.charts.clientWidth || 360));
    const onPick = (k) => this.show(k);
    const setting = { runs, view, colors, layerColors, times, width, height: 176, onPick };
    const ofX = content.quantities.includes(`${view.source}/I_XT`) ? view.source : COUNTS;
    const names = [`${ofX}/I_XT`, `${view.source}/I_TY`, view.extra].filter((name) => name !== undefined);
    this.drawnCharts = names.map((name) => new Chart(name, setting));
    this.charts.replaceChildren(...this.drawnCharts.map((chart) => chart.element));
    this.chooser.replaceChildren(quantityChooser(content, view, on));
  }

  /** Go to the moment with index k. */
  show(k) {
    const { times } = this;
    this.k = Math.max(0, Math.min(k, times.length - 1));
    const focused = this.planes.contains(document.activeElement);
    for (const plane of this.drawn) plane.show(this.k);
    for (const chart of this.drawnCharts) chart.show(this.k);
    this.view.time = this.k === times.length - 1 ? undefined : times[this.k];
    const words = times.length === 0 ? "nothing is shown" : `${this.view.clock} ${times[this.k]}`;
    this.bar.show(this.#share(this.k), words, this.playing);
    this.#showDetails();
    if (focused) this.planes.querySelector(".point[tabindex='0']")?.focus();
  }

  #share(k) {
    const [first, last, now] = [0, this.times.length - 1, k].map((one) => onAxis(this.times[one] ?? 0, this.view.logarithmic));
    return last > first ? (now - first) / (last - first) : 1;
  }

  /** Go to a share of the way between the first and the last moment. */
  seek(share) {
    const [first, last] = [this.times[0] ?? 0, this.times.at(-1) ?? 0].map((time) => onAxis(time, this.view.logarithmic));
    const place = first + share * (last - first);
    this.show(this.#momentAt(this.view.logarithmic ? Math.expm1(place) : place));
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
  play(playing) {
    this.playing = playing;
    if (!playing) {
      this.show(this.k);
      this.#keep();
      return;
    }
    let share = this.k >= this.times.length - 1 ? 0 : this.#share(this.k);
    const { least, most, aMeasurement } = PLAY_SECONDS;
    const seconds = () => Math.min(most, Math.max(least, aMeasurement * this.times.length)) / this.view.speed;
    let last = performance.now();
    const next = (now) => {
      if (!this.playing) return;
      share += (now - last) / 1000 / seconds();
      last = now;
      if (share >= 1) this.playing = false;
      this.seek(Math.min(1, share));
      if (this.playing) requestAnimationFrame(next);
    };
    this.seek(share);
    requestAnimationFrame(next);
  }

  // -- one point ------------------------------------------------------------------------------------------------------

  #choose(target) {
    if (!target.classList?.contains("point")) return;
    const { layer, run } = target.dataset;
    this.chosen = { layer, run };
    this.#showDetails();
  }

  #points() {
    return this.drawn.flatMap((plane) => plane.points ?? []);
  }

  #showDetails() {
    const points = this.#points();
    const isChosen = ({ track }) => track.layer === this.chosen?.layer && (track.run?.name ?? "") === this.chosen.run;
    const found = points.find(isChosen);
    for (const point of points) point.element.setAttribute("tabindex", point === (found ?? points[0]) ? 0 : -1);
    if (found === undefined) {
      this.details.replaceChildren(html("p", { class: "hint" }, ["Point at a marker, or Tab to it, for all its values."]));
      return;
    }
    this.drawn.forEach((plane) => plane.choose(isChosen));
    this.details.replaceChildren(...detailsOf(found.track, found.one, this.view));
    this.#showTooltip(found);
  }

  /** A few lines beside the chosen marker, while the pointer or the focus is on it. */
  #showTooltip({ track, one, element }) {
    this.tooltip?.remove();
    if (!element.matches(":hover, :focus")) return;
    this.tooltip = tooltipOf(track, one, this.view);
    this.root.append(this.tooltip);
    const [mark, frame, size] = [element, this.root, this.tooltip].map((of) => of.getBoundingClientRect());
    const left = Math.min(mark.right + 8, frame.right - size.width - 8) - frame.left;
    const top = mark.top - frame.top - size.height - 6;
    Object.assign(this.tooltip.style, { left: `${left}px`, top: `${top < 0 ? mark.bottom - frame.top + 6 : top}px` });
  }

  /** From point to point with the arrow keys, and through time with Page Up and Page Down. */
  #walk(event) {
    const points = this.#points();
    const here = points.findIndex(({ element }) => element === document.activeElement);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (here < 0 || (by === undefined && event.key !== "PageUp" && event.key !== "PageDown")) return;
    event.preventDefault();
    const next = (here + (by ?? 0) + points.length) % points.length;
    if (by === undefined) this.show(this.k + (event.key === "PageUp" ? -1 : 1));
    else points[next].element.focus();
  }

  // -- what the reader takes along -------------------------------------------------------------------------------------

  async save(kind) {
    const pictures = [...this.drawn, ...this.drawnCharts].map((one) => one.picture());
    const name = `information_plane_${this.view.clock}_${this.times[this.k] ?? 0}`;
    if (kind === "svg") download(svgText(together(pictures)), `${name}.svg`, "image/svg+xml");
    if (kind === "png") download(await png(together(pictures)), `${name}.png`, "image/png");
    if (kind === "csv") download(csv(this.shown, (layer) => this.view.hasLayer(layer)), "information_plane.csv", "text/csv");
    if (kind === "link") await this.#copy(this.link(this.view.toHash()));
  }

  async #copy(address) {
    try {
      await navigator.clipboard.writeText(address);
      this.faults.textContent = "The link is in the clipboard.";
    } catch { // not allowed in this frame: show it instead
      this.faults.replaceChildren("This link restores the view: ", html("a", { href: address, id: "address" }, [address]));
    }
  }
}
