"""From records to ``matplotlib.figure.Figure``."""

from lightning_ib.plot.correlations import plot_correlations
from lightning_ib.plot.estimates import plot_estimates
from lightning_ib.plot.gradients import plot_gradients
from lightning_ib.plot.information_plane import plot_information_plane
from lightning_ib.plot.panels import plot_layers, plot_runs
from lightning_ib.plot.resolution import plot_resolution

__all__ = [
    "plot_correlations",
    "plot_estimates",
    "plot_gradients",
    "plot_information_plane",
    "plot_layers",
    "plot_resolution",
    "plot_runs",
]
