"""The picture of the sampled rows of the layers: t-SNE in two dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lightning_ib.estimators.base import Rows
from lightning_ib.plot.labels import VERBATIM, depth_colors, legend, short_labels, tinted

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray

_COLUMNS = 4
_LEAST_SPREAD = 1e-12
_COMPONENTS = 50


def plot_tsne(
    layers: Mapping[str, Rows],
    when: str = "",
    places: dict[str, ndarray] | None = None,
    names: Iterable[str] | None = None,
) -> Figure:
    """Draw the rows of each layer in two dimensions by t-SNE (van der Maaten & Hinton 2008), colored by class.

    t-SNE keeps neighbors and distorts distances: the gaps between clusters and their widths are meaningless.
    scikit-learn computes it, from at most 50 principal components, with a random state of its own. The titles have the
    colors of the layers in the information plane; the points have those of their classes.

    Args:
        layers: the rows of each layer; at least four rows.
        when: the moment for the title, such as ``"epoch 3"``.
        places: the drawing before this one, by layer; updated. Each panel is turned and mirrored to it as far as the
            rows are the same (orthogonal Procrustes), so that pictures of one run can be compared.
        names: the names of the layers, such as with a progress bar around them.

    Returns:
        A figure independent of pyplot and of global state.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    places = {} if places is None else places
    columns = min(len(layers), _COLUMNS)
    lines = -(-len(layers) // columns)
    side = 3.4 if columns < 3 else 7.5 / columns
    figure = Figure(figsize=(side * columns + 0.1, side * lines + 0.9), dpi=130, layout="constrained")
    n_rows = len(next(iter(layers.values())).t)
    figure.suptitle(f"t-SNE{', ' * bool(when)}{when}: {n_rows} rows a layer", fontsize=11.5)
    classes: dict[str, Line2D] = {}
    palette = colormaps["tab10"]
    titles, shades = short_labels(list(layers)), depth_colors(len(layers))
    for k, layer in enumerate(layers if names is None else names):
        rows = layers[layer]
        axes = figure.add_subplot(lines, columns, k + 1)
        axes.set_title(titles[k], fontsize=8.5, color=tinted(shades[k], 1.28), **VERBATIM)
        axes.set(xticks=[], yticks=[])
        found = _embedded(rows, places.get(layer))
        if found is None:
            axes.text(0.5, 0.5, "no rows to tell apart", transform=axes.transAxes, ha="center", color="0.4")
            continue
        places[layer] = found
        labels = [None] if rows.labels is None else rows.labels.unique().tolist()
        for c, label in enumerate(labels):
            of = slice(None) if label is None else (rows.labels.flatten() == label).cpu().numpy()  # type: ignore[union-attr]
            color = palette(c % 10)
            axes.scatter(found[of, 0], found[of, 1], s=4, color=color, linewidths=0)
            if label is not None and len(labels) <= 20:
                classes[str(label)] = Line2D([], [], linestyle="", marker="o", markersize=5, color=color)
    if classes:
        spacing: dict[str, Any] = {"handletextpad": 0.1, "columnspacing": 1.2, "ncols": min(10, len(classes))}
        legend(figure, list(classes.values()), list(classes), loc="outside lower center", **spacing)
    return figure


def _embedded(rows: Rows, before: ndarray | None) -> ndarray | None:
    """The rows in two dimensions; ``None`` where they hardly differ."""
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    z = np.nan_to_num(rows.t.detach().reshape(len(rows.t), -1).cpu().double().numpy(), posinf=0.0, neginf=0.0)
    z = z - z.mean(0)
    # Rows that hardly differ, such as those of a dead layer, make scikit-learn take the process down.
    if len(z) < 4 or float(z.std()) < _LEAST_SPREAD:
        return None
    z = PCA(min(_COMPONENTS, *z.shape), svd_solver="full").fit_transform(z)
    perplexity = min(30.0, (len(z) - 1) / 3)
    init = "pca" if z.shape[1] > 1 else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own iterations
        found = TSNE(perplexity=perplexity, init=init, random_state=0).fit_transform(z)
    return turned(found, before)


def turned(found: ndarray, before: ndarray | None) -> ndarray:
    """Points, centered, and turned or mirrored to lie as near to earlier ones as that goes (Schönemann 1966).

    Args:
        found: shape ``(N, 2)``.
        before: the same points earlier, centered; with another shape or None, the points are only centered.
    """
    import numpy as np

    found = found - found.mean(0)
    if before is None or before.shape != found.shape:
        return found
    u, _, v = np.linalg.svd(found.T @ before)
    rotated: ndarray = found @ (u @ v)
    return rotated
