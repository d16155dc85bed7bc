"""What loggers wrote, read back; and a network that is not finite for a while."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from lightning_ib.records.measurement_json import measurement_from_json
from lightning_ib.report.custom_chart import COLUMNS
from tests.helpers.records import exact
from tests.helpers.tiny import TinyModule

PIL = pytest.importorskip("PIL.Image", reason="pictures are compared by their pixels")


class Sick(TinyModule):
    """Its last layer is NaN in the second epoch's validation."""

    def validation_step(self, batch, batch_idx):
        if self.current_epoch == 1:
            handle = self.hidden.register_forward_hook(lambda module, args, output: output * math.nan)
            self(batch[0])
            handle.remove()
        else:
            super().validation_step(batch, batch_idx)


def pixels(png):
    return np.asarray(PIL.open(io.BytesIO(png) if isinstance(png, bytes) else png).convert("RGB"))


def read_metrics_csv(log_dir):
    with (Path(log_dir) / "metrics.csv").open(newline="") as file:
        return [(int(row.pop("step")), {k: v for k, v in row.items() if v}) for row in csv.DictReader(file)]


def runs_in(page):
    """Run → its records, measurement by measurement, from a self-contained page."""
    start = '<script type="application/json" id="data">'
    data = page[page.index(start) + len(start) :].partition("</script>")[0]
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    return {
        name: [record for one in measured for record in measurement_from_json(json.dumps(one)).records()]
        for name, measured in json.loads(data)
    }


def assert_is_the_page(page, callback):
    """One run, called as in its pictures, with every record of the history."""
    ((name, records),) = runs_in(page).items()
    assert name == "/".join(callback.figure_path.parent.parts[-2:])
    assert sorted(map(repr, records)) == sorted(map(repr, callback.history.records()))


def assert_is_the_table(columns, rows, callback):
    """A row for each point, in the order of the history; null for NaN."""
    assert tuple(columns) == COLUMNS
    quantities = ("i_xt", "i_ty", "h_t", "i_xt_se", "i_ty_se", "h_t_se", "i_ty_permuted")
    expected = [
        [point.epoch, point.step, point.layer, point.unit, *(getattr(point, one) for one in quantities), point.verdict]
        for point in callback.history
    ]
    assert len({row[0] for row in rows}) == 1
    found = [[math.nan if value is None else value for value in row[1:]] for row in rows]
    assert exact(found) == exact(expected)
