// Colors, markers, numbers and names, the same in every picture of the page.

/** The plasma color map at nine even places: dark for the first layer, light for the last. */
const PLASMA = [
  [13, 8, 135], [76, 2, 161], [126, 3, 168], [170, 35, 149], [204, 71, 120], [230, 108, 92], [248, 149, 64],
  [253, 197, 39], [240, 249, 33],
];

/** The colors of n layers by depth. The end of the map that does not show on the background is left out. */
export function depthColors(n, dark) {
  const [first, last] = dark ? [0.4, 1] : [0, 0.84];
  return Array.from({ length: n }, (_, k) => plasma(first + ((last - first) * k) / Math.max(1, n - 1)));
}

function plasma(share) {
  const place = share * (PLASMA.length - 1);
  const k = Math.min(Math.floor(place), PLASMA.length - 2);
  const mixed = PLASMA[k].map((part, c) => Math.round(part + (place - k) * (PLASMA[k + 1][c] - part)));
  return `rgb(${mixed.join(",")})`;
}

/** The colors of everything else. */
export function palette(dark) {
  return dark
    ? { ground: "#1b1b1f", ink: "#e6e6ea", faint: "#a9a9b2", grid: "#34343b", bound: "#b5b5bd" }
    : { ground: "#ffffff", ink: "#1c1c22", faint: "#5b5b66", grid: "#e4e4ea", bound: "#5b5b66" };
}

/** The dashes of the paths of the k-th run. */
export function dashes(k) {
  return ["", "6 3", "2 3", "8 3 2 3", "12 4", "1 4"][k % 6];
}

const SIDES = {
  constant: 6, saturated: 4, clipped: 4, undersampled: 3, too_coarse: 3, target_saturated: 4, target_undersampled: 4,
  above_bound: 5, below_zero: 6, outgrown: 8, at_chance: 3,
};
const TURNS = { saturated: 45, too_coarse: 180, target_undersampled: 45, at_chance: 270, below_zero: 30 };
const STARS = ["target_saturated", "target_undersampled"];

/** The outline of a marker around the origin: a disc where the value is sound, else the shape of its verdict. */
export function markerPath(verdict, radius) {
  if (verdict === "" || verdict === "ok") {
    return `M${-radius} 0a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;
  }
  const sides = SIDES[verdict] ?? 5;
  const star = STARS.includes(verdict) || SIDES[verdict] === undefined;
  const n = star ? 2 * sides : sides;
  const corners = Array.from({ length: n }, (_, k) => {
    const angle = (Math.PI * (2 * k)) / n - Math.PI / 2 + ((TURNS[verdict] ?? 0) * Math.PI) / 180;
    const reach = radius * (star && k % 2 ? 0.5 : 1.25);
    return `${round(reach * Math.cos(angle))} ${round(reach * Math.sin(angle))}`;
  });
  return `M${corners.join("L")}Z`;
}

export function round(value) {
  return Math.round(value * 100) / 100;
}

/** A value for reading: four significant digits or four decimals. */
export function shown(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const size = Math.abs(value);
  return (size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : value.toFixed(4)).replace("-", "−");
}

const SYMBOLS = {
  I_XT: "I(X;T)", I_TY: "I(T;Y)", H_T: "H(T)", H_X: "H(X)", H_Y: "H(Y)", H_Y_given_T: "H(Y|T)",
  I_XT_given_Y: "I(X;T|Y)", saturation: "H(T)/log N", I_TY_permuted: "I(T;Y), permuted labels",
  I_TY_permuted_sd: "its standard deviation", I_TY_fano: "Fano’s bound", fano_shortfall: "shortfall from Fano’s bound",
  n_codes: "symbols", singleton_fraction: "samples with a symbol of their own", clipped_fraction: "values outside the bins",
  explained_variance: "variance between cells", accuracy: "accuracy", grad_snr: "gradient SNR",
  grad_mean: "mean gradient, norm", grad_std: "spread of gradients", grad_snr_unbiased: "gradient SNR, unbiased",
  grad_snr_floor: "gradient SNR without any signal", noise_scale: "gradient noise scale (samples)",
  weight_norm: "norm of the weights", weight_distance: "distance of the weights from the start",
  I_TY_bound: "bound of I(T;Y)", I_TY_gap: "I(T;Y) below its bound", I_XT_finite_sample: "I(X;T) off by at most (95 %)",
  I_TY_finite_sample: "I(T;Y) off by at most (95 %)", error_heuristic: "error by input compression (heuristic)",
};

/** A tick of an axis. */
export function tickLabel(value) {
  const size = Math.abs(value);
  return (size >= 1e5 || (size > 0 && size < 1e-4) ? value.toExponential() : String(value)).replace("-", "−");
}

/** A quantity in the field's notation. */
export function notation(quantity) {
  return SYMBOLS[quantity] ?? quantity.replace(/^I_XT_/, "I(X;T) ").replace(/^I_TY_/, "I(T;Y) ").replaceAll("_", " ");
}

/** Round places on an axis from low to high, about n of them. */
export function ticks(low, high, n) {
  if (!(high > low)) return [low];
  const rough = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** Places on an axis of time: round ones, or powers of ten where it is logarithmic. */
export function timeTicks(low, high, logarithmic, n) {
  if (!logarithmic) return ticks(low, high, n).filter(Number.isInteger);
  const found = low <= 0 ? [0] : [];
  for (let power = 1; power <= high; power *= 10) if (power >= low) found.push(power);
  return found.length > 1 ? found : [low, high];
}

/** The least and the greatest of many values. */
export function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Names of layers for labels: without the parts that end all of them, and without those that begin all if still long. */
export function shortNames(names, longest = 14) {
  if (names.length < 2 || names.every((name) => name.length <= longest)) return names.map((name) => elided(name));
  let parts = names.map((name) => name.split("."));
  while (parts.every((one) => one.length > 1 && one.at(-1) === parts[0].at(-1))) parts = parts.map((one) => one.slice(0, -1));
  let front = "";
  while (parts.some((one) => one.join(".").length > longest) && parts.every((one) => one.length > 1 && one[0] === parts[0][0])) {
    parts = parts.map((one) => one.slice(1));
    front = "…";
  }
  const short = parts.map((one) => front + one.join("."));
  return (new Set(short).size < new Set(names).size ? names : short).map((name) => elided(name));
}

function elided(name) {
  return name.length > 26 ? `…${name.slice(-25)}` : name;
}
