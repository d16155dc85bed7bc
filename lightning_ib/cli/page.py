"""``lightning-ib page``: runs as one HTML file."""

from __future__ import annotations

from argparse import Namespace

from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.pictures import checked_path
from lightning_ib.cli.runs import in_one_unit, read_runs
from lightning_ib.records.files import replacing
from lightning_ib.records.measurement_json import measurement_to_json, measurements_of
from lightning_ib.tensorboard_plugin.files import self_contained_html

FORMATS = (".html", ".htm")


def page(arguments: Namespace) -> int:
    """Write the page of TensorBoard with the values of runs inside.

    Raises:
        UsageError: a run or an option is wrong.
    """
    path = checked_path(arguments.output or "plane.html", FORMATS)
    runs = in_one_unit(read_runs(arguments.runs, say, arguments.layers), arguments.unit, say)
    entries = {run.name: [measurement_to_json(one, by=run.by) for one in measurements_of(run.history)] for run in runs}
    try:
        with replacing(path) as partial:
            partial.write_text(self_contained_html(entries, arguments.title), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"-o {path} cannot be written: {error.strerror}.") from error
    print(f"page: {path}")
    return 0
