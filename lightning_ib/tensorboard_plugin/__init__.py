"""The page "Information plane" in TensorBoard: an entry point, found where this package is installed.

TensorBoard imports this module at its start, and a failure would keep it from starting: nothing but TensorBoard and
the standard library is imported here.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

from tensorboard.plugins import base_plugin

from lightning_ib.records.tags import PLUGIN

_SAMPLES = {"scalars": 5000, "images": 100, PLUGIN: 0}
"""Plugin → how many values of a tag are kept, where the flag leaves it open; 0 for all.

TensorBoard's own numbers are 1 000 scalars and 10 pictures, and 10 of a plugin that it does not know.
"""


class InformationPlaneLoader(base_plugin.TBLoader):  # type: ignore[misc]
    """Makes the plugin; a failure is one line in the log of TensorBoard."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Keep more samples than TensorBoard does by itself, where ``--samples_per_plugin`` leaves it open."""
        try:
            flags.samples_per_plugin = _SAMPLES | (flags.samples_per_plugin or {})
        except Exception:
            logging.getLogger(__name__).exception("TensorBoard keeps its own numbers of samples.")

    def load(self, context: base_plugin.TBContext) -> Any:
        """The plugin, or ``None`` if it cannot be loaded."""
        try:
            from lightning_ib.tensorboard_plugin.plugin import InformationPlanePlugin

            return InformationPlanePlugin(context)
        except Exception:
            logging.getLogger(__name__).exception("The page of the information plane could not be loaded.")
            return None
