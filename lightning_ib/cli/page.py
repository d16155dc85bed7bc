"""``lightning-ib page``: runs as one HTML file."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.pictures import checked_path
from lightning_ib.cli.runs import Run, in_one_unit, read_runs
from lightning_ib.records.files import replacing
from lightning_ib.records.measurement_json import measurement_to_json, measurements_of
from lightning_ib.records.tags import PLUGIN, measurement_tag
from lightning_ib.tensorboard_plugin.files import self_contained_html

FORMATS = (".html", ".htm")


def page(arguments: Namespace) -> int:
    """Write the page of TensorBoard with the values of runs inside.

    Raises:
        UsageError: a run or an option is wrong.
    """
    path = checked_path(arguments.output or "plane.html", FORMATS)
    runs = in_one_unit(read_runs(arguments.runs, say, arguments.layers, target=arguments.target), arguments.unit, say)
    entries = {run.name: _measurements(run) for run in runs}
    try:
        with replacing(path) as partial:
            partial.write_text(self_contained_html(entries, arguments.title), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"-o {path} cannot be written: {error.strerror}.") from error
    print(f"page: {path}")
    return 0


def _measurements(run: Run) -> list[str]:
    """The measurements of a run as JSON, with words on how layers were discretized where its event file has them."""
    words: Mapping[tuple[int, int], Any] = {}
    with suppress(Exception):  # an event file that is damaged or missing: the values are in the CSV
        words = _discretized(run)
    return [
        measurement_to_json(one, by=run.by, discretized=words.get(one.records()[0][:2]))
        for one in measurements_of(run.history)
    ]


def _discretized(run: Run) -> dict[tuple[int, int], Any]:
    """(epoch, step) → layer → how it was discretized, in words, from the event files beside the CSV."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(run.file.parent.glob("events.out.tfevents.*")):
        return {}
    nothing = {"scalars": 1, "images": 1, "compressedHistograms": 1, "histograms": 1, "audio": 1}
    events = EventAccumulator(str(run.file.parent), size_guidance=nothing | {"tensors": 0})
    events.Reload()
    prefix = run.file.stem.removeprefix(PLUGIN).strip("_") or "ib"
    texts = [one.tensor_proto.string_val[0] for one in events.Tensors(measurement_tag(prefix))]
    layers = {record.layer for record in run.history.records()}
    found = {}
    for one in map(json.loads, texts):
        of_layers = {layer: how for layer, how in one.get("discretized", {}).items() if layer in layers}
        found[one["epoch"], one["step"]] = of_layers
    return found
