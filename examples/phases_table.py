"""What the runs of ``phases.py`` say: transitions, exponents and compression, layer by layer, and an answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from phases_runs import Run

from lightning_ib import Record
from lightning_ib.functional import WeightDiffusion, weight_diffusion
from lightning_ib.records import phase_transition
from lightning_ib.records.record import ALL_LAYERS, COUNTED, GRADIENT, IN_WORDS, STANDARD_ERRORS

Series = Mapping[int, Record]
"""Time → the value of one quantity of one layer."""
NEAR = 2.0
"""Two moments are near each other when their ratio is at most this."""

MUCH = 0.5
"""Bits: by how much H(T) falls where it is more than a trifle."""


def series(run: Run, layer: str, source: str, quantity: str) -> Series:
    """Time → the values of one quantity of a layer, in the order of time."""
    return {
        getattr(one, run.clock): one
        for one in run.history.records()
        if (one.layer, one.source, one.quantity) == (layer, source, quantity)
    }


def layers_of(run: Run) -> list[str]:
    """The layers with gradients, from the first to the last."""
    return [
        name for name in dict.fromkeys(one.layer for one in run.history.gradients().records()) if name != ALL_LAYERS
    ]


# -- gradients ---------------------------------------------------------------------------------------------------------


class Phases(NamedTuple):
    """The gradients and the weights of one layer of one run.

    Attributes:
        layer: its name; ``"all_layers"`` for the network.
        transition: the first moment from which the SNR stays below 1; NaN where there is none.
        snr_first: at the first moment.
        snr_max: the largest of all moments.
        snr_last: at the last moment.
        floor: 1/√M, the SNR without any signal.
        at_floor: the share of moments at which the SNR is at or under the floor.
        noise_scale: the least of all moments, in samples; infinite where the SNR is always at or under the floor.
        noise_scale_last: at the last moment.
        diffusion: from the transition on, or from the first moment where there is none.
    """

    layer: str
    transition: float
    snr_first: float
    snr_max: float
    snr_last: float
    floor: float
    at_floor: float
    noise_scale: float
    noise_scale_last: float
    diffusion: WeightDiffusion


def phases(run: Run, layer: str) -> Phases:
    """The phases of one layer of a run."""
    snr, floor, noise_scale, distance = (
        [one.value for one in series(run, layer, GRADIENT, quantity).values()]
        for quantity in ("grad_snr", "grad_snr_floor", "noise_scale", "weight_distance")
    )
    times = list(series(run, layer, GRADIENT, "grad_snr"))
    transition = phase_transition(times, snr=snr)
    first = times[0] if math.isnan(transition) else transition
    # An exponent needs a window: of a run with a single moment there is none.
    window = (first, times[-1]) if first < times[-1] else None
    return Phases(
        layer,
        transition,
        snr[0],
        max(snr),
        snr[-1],
        floor[-1],
        sum(a <= b for a, b in zip(snr, floor)) / len(snr),
        min(noise_scale),
        noise_scale[-1],
        weight_diffusion(times, distances=distance, window=window),
    )


# -- compression -------------------------------------------------------------------------------------------------------


class Compression(NamedTuple):
    """H(T) of one layer of one run, in bits.

    Attributes:
        layer: its name.
        source: ``"binned"`` or ``"cells"``.
        begins: the moment of the largest H(T), if the last one lies below it by more than two standard errors of the
            difference; else NaN.
        leaves: the last moment at which H(T) is within those errors of the largest; NaN as above. Between the two it
            cannot be said when compression begins.
        h_max: the largest H(T).
        h_transition: at the transition; NaN where there is none.
        h_last: at the last moment.
        se_last: its standard error.
    """

    layer: str
    source: str
    begins: float
    leaves: float
    h_max: float
    h_transition: float
    h_last: float
    se_last: float


def compression(
    entropies: Mapping[int, tuple[float, float]], *, layer: str, source: str, transition: float
) -> Compression:
    """When H(T) begins to fall, if it does.

    Args:
        entropies: time → H(T) and its standard error, in bits.
        layer: for the result.
        source: for the result.
        transition: of its gradients; NaN where there is none.
    """
    known = {time: (h, 0.0 if math.isnan(se) else se) for time, (h, se) in entropies.items() if not math.isnan(h)}
    peak = max(known, key=lambda time: known[time][0])
    last = max(known)
    h_max, se_max = known[peak]

    def is_below(time: int) -> bool:
        h, se = known[time]
        return h_max - h > max(STANDARD_ERRORS * math.hypot(se_max, se), 1e-9)

    falls = is_below(last)
    return Compression(
        layer,
        source,
        float(peak) if falls else math.nan,
        float(max(time for time in known if not is_below(time))) if falls else math.nan,
        h_max,
        known.get(int(transition), (math.nan,))[0] if not math.isnan(transition) else math.nan,
        *known[last],
    )


def compressions(run: Run) -> list[Compression]:
    """Of all layers, in all kinds of symbols that they were counted in."""
    found = []
    for layer in layers_of(run):
        transition = phases(run, layer).transition
        for source in COUNTED:
            entropies = {t: (one.value, one.standard_error) for t, one in series(run, layer, source, "H_T").items()}
            if entropies:
                found.append(compression(entropies, layer=layer, source=source, transition=transition))
    return found


class Pair(NamedTuple):
    """A layer in which both exist: a transition of its gradients, and compression."""

    run: Run
    transition: float
    compression: Compression

    @property
    def decades(self) -> float:
        """How long after the transition compression begins, in powers of ten; before the first moment counts as it."""
        return math.log10(max(self.compression.begins, self.first) / self.transition)

    @property
    def is_near(self) -> bool:
        """Whether the two are within a factor of ``NEAR`` of each other."""
        return abs(self.decades) <= math.log10(NEAR)

    @property
    def is_much(self) -> bool:
        """Whether H(T) falls by more than ``MUCH``."""
        return self.compression.h_max - self.compression.h_last > MUCH

    @property
    def is_within_errors(self) -> bool:
        """Whether the transition lies where, within the errors of H(T), compression may begin."""
        return self.compression.begins <= self.transition <= self.compression.leaves

    @property
    def first(self) -> int:
        """The first moment of gradients."""
        return min(series(self.run, self.compression.layer, GRADIENT, "grad_snr"))


def pairs(run: Run, *, of_all_weights: bool = False) -> list[Pair]:
    """The layers of a run in which both exist.

    Args:
        run: the run.
        of_all_weights: whether the transition is that of all weights, in place of each layer's own.
    """
    transitions = {one: phases(run, ALL_LAYERS if of_all_weights else one).transition for one in layers_of(run)}
    found = (Pair(run, transitions[one.layer], one) for one in compressions(run))
    return [one for one in found if not math.isnan(one.transition + one.compression.begins)]


# -- the table ---------------------------------------------------------------------------------------------------------


def table(runs: Sequence[Run]) -> str:
    """A row for each layer of each run: gradients and weights, then H(T)."""
    rows = []
    for run in runs:
        rows += ["", f"{run}; times in {run.clock}s", *rows_of_phases(run), "", *rows_of_compression(run)]
    return "\n".join(rows[1:])


def rows_of_phases(run: Run) -> list[str]:
    """Gradients and weights of one run."""
    above = f"SNR (floor {phases(run, ALL_LAYERS).floor:.2f})"
    rows = [
        f"{'':22}  {above:^22}  {'under':>5}  {'noise scale':^14}  distance ∝ time^α",
        f"{'layer':10}  {'transition':>10}  {'first':>6}  {'max':>6}  {'last':>6}  floor  {'least, last':^14}  "
        "    α     R²  window",
    ]
    for one in (phases(run, name) for name in (*layers_of(run), ALL_LAYERS)):
        snr = "  ".join(f"{value:6.2f}" for value in (one.snr_first, one.snr_max, one.snr_last))
        scale = f"{count(one.noise_scale)}, {count(one.noise_scale_last)}"
        start = f"{one.layer:10}  {moment(one.transition):>10}  {snr}  {one.at_floor:5.0%}"
        rows.append(f"{start}  {scale:^14}  {exponent(one.diffusion)}")
    return rows


def rows_of_compression(run: Run) -> list[str]:
    """H(T) of one run."""
    rows = [
        f"{'':18}  {'H(T) [bits]':^35}  compression begins at the largest;",
        f"{'layer':10}  {'in':6}  {'largest':>8}  {'transition':>10}  {'last':^13}  in brackets: within errors until",
    ]
    for one in compressions(run):
        at = "–" if math.isnan(one.h_transition) else f"{one.h_transition:.2f}"
        begins = moment(one.begins) + ("" if math.isnan(one.begins) else f" ({moment(one.leaves)})")
        h = f"{one.h_max:8.2f}  {at:>10}  {one.h_last:5.2f} ± {one.se_last:.2f}"
        rows.append(f"{one.layer:10}  {IN_WORDS[one.source]:6}  {h:35}  {begins}")
    return rows


def moment(time: float) -> str:
    """A moment, or ``"none"``."""
    return "none" if math.isnan(time) else f"{time:.0f}"


def count(value: float) -> str:
    """A number of samples: ``"∞"`` where no signal is left, a dash where it is unknown."""
    return "∞" if value == math.inf else "–" if math.isnan(value) else f"{value:.0f}" if value < 1e5 else f"{value:.0e}"


def exponent(found: WeightDiffusion) -> str:
    """The exponent, its R² and its window; ``"–"`` from fewer than 1.5 decades."""
    window = f"{moment(found.first)}–{moment(found.last)}"
    if math.isnan(found.exponent):
        return f"{'–':>5}  {'–':>5}  {window}: under 1.5 decades"
    return f"{found.exponent:5.2f}  {found.exponent_r2:5.2f}  {window}"


# -- the answer --------------------------------------------------------------------------------------------------------


def findings(runs: Sequence[Run]) -> str:
    """Does compression begin at the transition? The answer in numbers, for each task, activation and kind of symbol."""
    lines = ["Does compression begin at the transition?"]
    for task, activation, source in dict.fromkeys(
        (run.task, run.activation, one.source) for run in runs for one in compressions(run)
    ):
        chosen = [run for run in runs if (run.task, run.activation) == (task, activation)]
        lines.append(f"{task}, {activation}, {IN_WORDS[source]}: {answer(chosen, source)}")
    lines += ["", in_all([pair for run in runs for pair in pairs(run)], "each layer's own transition")]
    of_all = [pair for run in runs for pair in pairs(run, of_all_weights=True)]
    lines += [in_all(of_all, "the transition of all weights instead"), "", *reservations(runs)]
    return "\n".join(lines)


def in_all(found: Sequence[Pair], transition: str) -> str:
    """In words, of all pairs: how many are near each other, and which of the two comes first in the others."""
    parts = []
    kinds = {"both exist": found, f"H(T) falls by over {MUCH:g} bits": [one for one in found if one.is_much]}
    for kind, chosen in kinds.items():
        near = sum(one.is_near for one in chosen)
        earlier = sum(not one.is_near and one.decades < 0 for one in chosen)
        later = len(chosen) - near - earlier
        parts.append(
            f"of {len(chosen)} times that {kind}, compression begins within a factor of {NEAR:g} of it in {near}, "
            f"earlier in {earlier}, later in {later}"
        )
    return f"In all, by {transition}: {'; '.join(parts)}."


def answer(runs: Sequence[Run], source: str) -> str:
    """In words, of runs of one kind."""
    found = [one for run in runs for one in compressions(run) if one.source == source]
    both = [pair for run in runs for pair in pairs(run) if pair.compression.source == source]
    n_transitions = sum(not math.isnan(phases(run, layer).transition) for run in runs for layer in layers_of(run))
    falls = [one.h_max - one.h_last for one in found if not math.isnan(one.begins)]
    text = (
        f"of {len(found)} layers {n_transitions} have a transition, {len(falls)} compress "
        f"({sum(of > MUCH for of in falls)} by more than {MUCH:g} bits), {len(both)} do both"
    )
    if not both:
        return f"{text}: it cannot be said."
    n_near = sum(pair.is_near for pair in both)
    n_within = sum(pair.is_within_errors for pair in both)
    return (
        f"{text}. In {n_near} of {len(both)} compression begins within a factor of {NEAR:g} of the transition, and in "
        f"{n_within} H(T) is still within errors of its largest value there; it begins "
        f"{spread([pair.decades for pair in both])} decades after the transition (median, range)."
    )


def spread(values: Sequence[float]) -> str:
    """The median and the range, with signs."""
    low, middle, high = (f"{value:+.2f}".replace("-", "−") for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})"


def reservations(runs: Sequence[Run]) -> list[str]:
    """What the numbers leave open, in numbers."""
    layers = [(run, phases(run, layer)) for run in runs for layer in layers_of(run)]
    never = [one for _, one in layers if one.snr_max < 1]
    silent = [one for _, one in layers if one.at_floor == 1]
    above_again = [one for _, one in layers if math.isnan(one.transition) and one.snr_max >= 1]
    lines = [
        f"Of {len(layers)} layers in all, the SNR of {len(never)} is below 1 at every moment, and that of "
        f"{len(above_again)} is 1 or more near the end: they have no transition. That of {len(silent)} is at or under "
        "the floor throughout, where an SNR below 1 says nothing of the signal; of the others it is so at "
        f"{shares([one.at_floor for _, one in layers if one.at_floor < 1])} of the moments (median, range).",
        "Where the gradients are those of a whole epoch, as of the twelve bits, each sample comes once: the noise of "
        "batches partly cancels in their mean, and the SNR can lie below the floor.",
        "At given weights the SNR grows with the batch size as √B, and so the moment at which it falls below 1 depends "
        "on it; the noise scale does not.",
    ]
    for (task, activation), found in by_batch_size(runs).items():
        shown = ", ".join(
            f"{moment(one.transition)} with batches of {size} (least noise scale {count(one.noise_scale)})"
            for size, one in found.items()
        )
        lines.append(f"Transition of all weights ({task}, {activation}): {shown}.")
    return lines


def shares(values: Sequence[float]) -> str:
    """The median and the range, in per cent."""
    if not values:
        return "none"
    return f"{median(values):.0%} ({min(values):.0%} to {max(values):.0%})"


def by_batch_size(runs: Iterable[Run]) -> dict[tuple[str, str], dict[int, Phases]]:
    """Task and activation → batch size → the phases of all weights, of the first seed."""
    found: dict[tuple[str, str], dict[int, Phases]] = {}
    for run in runs:
        if run.seed == 0:
            found.setdefault((run.task, run.activation), {})[run.batch_size] = phases(run, ALL_LAYERS)
    return found
