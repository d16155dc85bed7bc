// Verdicts in words, where the measurement itself gives no reason.

import { COUNTED, COUNTS } from "./runs.js";

/** Verdict → what it says of counted values. */
export const VERDICTS = {
  constant: "all samples share one symbol",
  saturated: "H(T) is near log N, so that symbols name samples rather than features",
  clipped: "many values lie beyond the bins",
  undersampled: "many samples have a symbol of their own",
  too_coarse: "I(T;Y) of the head lies below the Fano bound of its own accuracy",
  target_saturated: "most samples have a target of their own",
  target_undersampled: "many samples have a target of their own",
};

/** Verdict → what it says of an estimator's values. */
export const OF_ESTIMATORS = {
  saturated: "I(X;T) is near log M, so that nearly every row is unique to the estimator",
  above_bound: "the value exceeds its bound: H(Y) for I(T;Y), log M for I(X;T)",
  below_zero: "an information lies below 0 by more than four standard errors",
  outgrown: "the layer has outgrown the scale that the estimator was calibrated to",
  at_chance: "I(T;Y) does not exceed what permuted labels give",
};

/** The verdict on a value and its reason, in a sentence. */
export function verdictOf(measurement, layer, source, verdict) {
  if (!verdict) return "no verdict";
  if (verdict === "ok") return "ok: no flag was raised";
  const counted = source === COUNTS || COUNTED.includes(source);
  const why = counted ? (measurement.reasons.get(layer) ?? VERDICTS[verdict]) : OF_ESTIMATORS[verdict];
  return why ? `${verdict}: ${why}` : verdict;
}
