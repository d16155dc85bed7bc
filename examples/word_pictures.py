"""Pictures of the words of a language model: a layer each, by t-SNE in two and in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from word_vectors import Neighbors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_PERPLEXITY = 25


def shown_words(near: Neighbors, n: int) -> Tensor:
    """The chosen words and the n nearest of each, as places in ``near.words``, ascending."""
    shown: Tensor = torch.cat([near.chosen, near.nearest(n).flatten()]).unique()
    return shown


def placed(vectors: Tensor, dimensions: int) -> np.ndarray:
    """Rows by t-SNE, as far as directions go: cosines are what neighbors are by.

    Args:
        vectors: float64, shape ``(M, D)``.
        dimensions: 2 or 3.

    Returns:
        ``(M, 2)`` or ``(M, 3)``, the same at every call.
    """
    from sklearn.manifold import TSNE

    rows = normalize(vectors - vectors.mean(0)).numpy()
    perplexity = min(_MOST_PERPLEXITY, (len(rows) - 1) / 3)
    found: np.ndarray = TSNE(dimensions, init="pca", perplexity=perplexity, random_state=0).fit_transform(rows)
    return found


def colors(n: int) -> list[Any]:
    """One color for each chosen word."""
    from matplotlib import colormaps

    return [colormaps["tab20"]((2 * k) % 20 + (k >= 10)) for k in range(n)]


def draw_words(
    panels: dict[str, np.ndarray], names: Sequence[str], chosen: Sequence[int], closest: Sequence[int], title: str
) -> Figure:
    """A panel for each layer, with the chosen words labeled and the others in the color of the chosen one that is near.

    Args:
        panels: layer → the places of the words, ``(M, 2)`` or ``(M, 3)``.
        names: of the chosen words.
        chosen: their places among the M.
        closest: which of the chosen words each of the M is nearest to in the last layer, ``(M,)``.
        title: of the whole.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 5.4), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    shades = np.array(colors(len(names)))
    for k, (layer, places) in enumerate(panels.items()):
        solid = places.shape[1] == 3
        axes: Any = figure.add_subplot(1, len(panels), k + 1, projection="3d" if solid else None)
        axes.set_title(layer, fontsize=11)
        axes.scatter(*places.T, s=9, c=shades[list(closest)], alpha=0.55, linewidths=0)
        axes.scatter(*places[list(chosen)].T, s=42, c=shades, edgecolors="black", linewidths=0.8)
        axes.set_xticks([])
        axes.set_yticks([])
        if solid:
            axes.set_zticks([])
            axes.set_box_aspect(None, zoom=1.15)
            places = _projected(axes, places)
        else:
            margin = 0.06 * np.ptp(places, axis=0)
            axes.set_xlim(places[:, 0].min() - margin[0], places[:, 0].max() + margin[0])
            axes.set_ylim(places[:, 1].min() - margin[1], places[:, 1].max() + margin[1])
        span = np.ptp(places, axis=0) * (2.3 if solid else 1.12)  # about what the panel spans
        _label(axes, names, places[list(chosen)], (places.max(0) + places.min(0) - span) / 2, span)
    return figure


def _projected(axes: Any, places: np.ndarray) -> np.ndarray:
    """Where places in three dimensions are seen, in the coordinates that annotations have."""
    from mpl_toolkits.mplot3d import proj3d  # type: ignore[import-untyped]

    x, y, _ = proj3d.proj_transform(*places.T, axes.get_proj())
    return np.stack([np.asarray(x), np.asarray(y)], 1)


def _label(axes: Axes, names: Sequence[str], places: np.ndarray, low: np.ndarray, span: np.ndarray) -> None:
    """Names beside their points, moved apart until they overlap no longer; a thin line leads to a point that is far."""
    size = np.stack([np.array([0.0215 * len(name) + 0.01 for name in names]), np.full(len(names), 0.042)], 1)
    at = (places - low) / span + np.array([0.0, 0.042])
    dots = (places - low) / span
    for _ in range(400):
        push = np.zeros_like(at)
        for i in range(len(at)):
            for j in range(len(at)):
                gap = at[i] - at[j]
                overlap = (size[i] + size[j]) / 2 - np.abs(gap)
                if i != j and (overlap > 0).all():
                    axis = int(overlap[1] > overlap[0]) ^ 1
                    push[i, axis] += (0.5 * overlap[axis] + 1e-3) * (
                        1 if gap[axis] > 0 or (gap[axis] == 0 and i > j) else -1
                    )
        if not push.any():
            break
        at = np.clip(at + push, size / 2 + 0.005, 0.995 - size / 2)
    for name, place, dot in zip(names, at, dots):
        axes.annotate(
            name,
            low + dot * span,
            low + place * span,
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
            bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
        )
