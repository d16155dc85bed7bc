"""Names and colors of layers in pictures: short names, text drawn letter by letter, and placement without overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from numpy import ndarray

Color = tuple[float, float, float]

VERBATIM: dict[str, Any] = {"parse_math": False, "usetex": False}
"""For text that holds a name: ``$`` and ``_`` are letters like any other."""

_LONGEST_NAME = 32

# In points: the grid on which the obstacles below a label are counted.
_GRAIN = 2.0

# Of a candidate place for a label, in points: how far from its anchor, and in how many directions.
_REACHES = (6, 12, 20, 30, 42, 56, 72, 90, 110, 135)
_DIRECTIONS = 16

VERDICT_MARKERS = {
    "constant": "h",
    "saturated": "s",
    "clipped": "D",
    "undersampled": "^",
    "too_coarse": "v",
    "target_saturated": "P",
    "target_undersampled": "X",
    "above_bound": "p",
    "below_zero": "8",
    "outgrown": "d",
    "at_chance": "<",
}
"""The hollow marker of each verdict but ``ok``, which is a disc."""


def depth_colors(n: int) -> list[Color]:
    """The colors of ``n`` layers, dark for the first and light for the last: the same in every picture.

    The lightness of the map rises evenly, so that the order shows in gray and to the color blind. Its lightest part is
    left out: it hardly shows on white.
    """
    from matplotlib import colormaps

    shades = (colormaps["plasma"](0.84 * k / max(1, n - 1)) for k in range(n))
    return [(float(red), float(green), float(blue)) for red, green, blue, _ in shades]


def tinted(color: Color, share: float) -> Color:
    """A color mixed with white, or with black where ``share`` is above 1: 1 is the color itself."""
    if share > 1:
        return tuple(part * (2 - share) for part in color)  # type: ignore[return-value]
    return tuple(share * part + (1 - share) for part in color)  # type: ignore[return-value]


def short_labels(names: Sequence[str], longest: int = _LONGEST_NAME) -> list[str]:
    """Module names short enough for a picture, and still different.

    From names that are too long the common prefix goes first, then the common end, then their middles. Characters that
    the font lacks are written as escape sequences.

    Example:
        >>> short_labels([f"model.encoder.block.{k}.attention.self.output" for k in range(2)], 20)
        ['…0…', '…1…']
    """
    names = [_drawable(name) for name in names]
    if all(len(name) <= longest for name in names):
        return names
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts)) - 1
    front = next((k for k in range(shortest) if len({p[k] for p in parts}) > 1), shortest) if len(names) > 1 else 0
    rest = [p[front:] for p in parts]
    short = ["…" * (front > 0) + ".".join(p) for p in rest]
    if len(names) > 1 and any(len(name) > longest for name in short):
        least = min(map(len, rest)) - 1
        tail = next((k for k in range(least) if len({p[-1 - k] for p in rest}) > 1), least)
        short = ["…" * (front > 0) + ".".join(p[: len(p) - tail]) + "…" * (tail > 0) for p in rest]
    short = [_elided(name, longest) for name in short]
    if len(set(short)) < len(set(names)):
        short = [_elided(f"{k + 1}: {name}", longest) for k, name in enumerate(short)]
    return short


def _elided(name: str, longest: int) -> str:
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half + 1 :]}"


def _drawable(name: str) -> str:
    if name.isascii() and name.isprintable():
        return name
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(
        c if c.isprintable() and font.get_char_index(ord(c)) else c.encode("unicode_escape").decode() for c in name
    )


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], **how: Any) -> Legend:
    """A legend of any labels: matplotlib itself leaves out those that begin with an underscore."""
    made = figure.legend(handles=list(handles), labels=["-"] * len(labels), frameon=False, **how)
    for text, label in zip(made.get_texts(), labels):
        text.set(text=label, **VERBATIM)
    return made


def extents(labels: Sequence[str], size: float) -> list[tuple[float, float]]:
    """The width and height of each label in points, in the font that matplotlib would take, and a margin."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(size=size)))
    font.set_size(size, 72)
    found = []
    for label in labels:
        font.set_text(label, 0.0)
        found.append((1.06 * font.get_width_height()[0] / 64 + 3, 1.25 * size))  # hinting may widen it
    return found


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in ascending order, near the wanted ones, at least ``gap`` apart, and between two ends as far as they fit.

    Example:
        >>> spread_out([1.0, 1.5, 9.0], 2.0, 0.0, 10.0)
        [1.0, 3.0, 9.0]
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, low, places[-1] + gap if places else low))
    for k in range(len(places) - 1, -1, -1):
        places[k] = min(places[k], high - gap * (len(places) - 1 - k))
    return places


def free_places(
    anchors: ndarray, sizes: Sequence[tuple[float, float]], obstacles: ndarray, room: tuple[float, float]
) -> ndarray:
    """Where labels can stand near their anchors, one after the other, each at the cheapest of some hundred candidates.

    A candidate costs its distance from the anchor, the obstacles below the label, and far more where the label would
    lie on another, on an anchor, or outside the room. The same input gives the same places.

    Args:
        anchors: the points that the labels belong to, shape ``(n, 2)``.
        sizes: width and height of each.
        obstacles: points that labels should avoid, shape ``(m, 2)``.
        room: width and height of the rectangle from the origin on; all in the same unit.

    Returns:
        The centers of the labels, shape ``(n, 2)``.
    """
    import numpy as np

    angles = np.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
    toward = np.stack((np.cos(angles), np.sin(angles)), 1)
    reach = np.repeat(_REACHES, _DIRECTIONS)[:, None]
    toward = np.tile(toward, (len(_REACHES), 1))
    covered = _counts(obstacles, room)
    boxes = np.zeros((0, 4))  # left, bottom, right, top of the labels placed so far
    leaders = np.zeros((0, 2))
    places = np.zeros((len(anchors), 2))
    for k in np.lexsort((anchors[:, 0], -anchors[:, 1])):  # from the top down
        half = np.array(sizes[k]) / 2
        centers = anchors[k] + toward * reach + half * np.clip(1.5 * toward, -1, 1)
        low, high = centers - half, centers + half

        def inside(points: ndarray, low: ndarray = low, high: ndarray = high) -> ndarray:
            """How many points each candidate covers."""
            n_inside: ndarray = ((points > low[:, None] - 3) & (points < high[:, None] + 3)).all(2).sum(1)
            return n_inside

        left, lower = np.clip(((low - 2) // _GRAIN).astype(int), 0, np.array(covered.shape) - 1).T
        right, upper = np.clip(((high + 2) // _GRAIN + 1).astype(int), 0, np.array(covered.shape) - 1).T
        under = covered[right, upper] - covered[left, upper] - covered[right, lower] + covered[left, lower]

        outside = np.maximum(0, np.maximum(-low, high - np.array(room))).sum(1)
        on_others = (
            (low[:, None, 0] < boxes[:, 2])
            & (high[:, None, 0] > boxes[:, 0])
            & (low[:, None, 1] < boxes[:, 3])
            & (high[:, None, 1] > boxes[:, 1])
        ).sum(1)
        # The leader, from the anchor to the label, at a few places.
        ends = np.clip(anchors[k], low, high)
        line = anchors[k] + np.linspace(0.25, 0.95, 6)[:, None, None] * (ends - anchors[k])
        crossed = ((line[:, :, None] > boxes[:, :2]) & (line[:, :, None] < boxes[:, 2:])).all(3).sum((0, 2))
        cost = reach[:, 0] + 6.0 * np.minimum(under, 14) + 40.0 * inside(anchors) + 60.0 * inside(leaders)
        best = int(np.argmin(cost + 1e3 * on_others + 100.0 * crossed + 1e3 * outside))
        places[k] = centers[best]
        boxes = np.vstack((boxes, (*low[best], *high[best])))
        leaders = np.vstack((leaders, line[:, best]))
    return places


def _counts(points: ndarray, room: tuple[float, float]) -> ndarray:
    """How many points lie to the lower left of each crossing of a grid."""
    import numpy as np

    edges: list[Any] = [np.arange(int(side // _GRAIN) + 2) * _GRAIN for side in room]
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=edges)[0]
    return np.pad(counts.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
