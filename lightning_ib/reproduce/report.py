"""Writes what an experiment found: a picture, a table, and a text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_ib.records.files import replacing
from lightning_ib.reproduce.experiment import Claim, Finding
from lightning_ib.reproduce.finished import Row
from lightning_ib.reproduce.registry import Experiment


class Written(NamedTuple):
    """The paths of what was written."""

    picture: Path
    table: Path
    text: Path


def files_of(experiment: Experiment, folder: Path) -> Written:
    """Where a finding is written to: ``NAME.png``, ``NAME.csv`` and ``NAME.md``."""
    return Written(*(folder / f"{experiment.name}.{suffix}" for suffix in ("png", "csv", "md")))


def write_finding(experiment: Experiment, finding: Finding, folder: Path, version: str) -> Written:
    """Write ``NAME.png``, ``NAME.csv`` and ``NAME.md`` into a folder, each as a whole.

    Args:
        experiment: what was run.
        finding: what was found.
        folder: is made if it is missing.
        version: of this package, for the text.

    Raises:
        OSError: a file cannot be written; an older one is left as it was.
    """
    written = files_of(experiment, folder)
    with replacing(written.picture) as partial:
        finding.figure.savefig(partial, format="png", dpi=finding.figure.dpi)
    with replacing(written.table) as partial:
        partial.write_text(_table(finding), encoding="utf-8", newline="")
    with replacing(written.text) as partial:
        partial.write_text(text_of(experiment, finding, version), encoding="utf-8")
    return written


def _table(finding: Finding) -> str:
    """The rows as CSV."""
    text = io.StringIO(newline="")
    columns = list(finding.rows[0]) if finding.rows else []
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(finding.rows)
    return text.getvalue()


def text_of(experiment: Experiment, finding: Finding, version: str) -> str:
    """The text in Markdown: what was claimed and found, how it was measured, the settings, the faults not copied."""
    settings = dict(finding.settings) | {"lightning-ib": version, "torch": torch.__version__}
    parts = [
        f"# {experiment.name}: {experiment.title}",
        f"Source: {experiment.source}.",
        f"![{experiment.title}]({experiment.name}.png)",
        "## Claimed and found",
        "\n".join(_claim(number, claim) for number, claim in enumerate(finding.claims, 1)),
        *([_in_markdown(finding.summary)] if finding.summary else []),
        "## How it was measured",
        _list(finding.method),
        f"Every value is in `{experiment.name}.csv`.",
        "## Settings",
        _in_markdown([{"setting": name, "value": value} for name, value in settings.items()]),
    ]
    if finding.faults:
        parts += ["## Faults of the original that are not copied", _list(finding.faults)]
    return "\n\n".join(parts) + "\n"


def _in_markdown(rows: Sequence[Row]) -> str:
    """A table of equal columns, numbers with four digits."""
    columns = list(rows[0])
    lines = [
        [_cell(name) for name in columns],
        ["---"] * len(columns),
        *([_cell(row[name]) for name in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return (f"{value:.4g}" if isinstance(value, float) else str(value)).replace("|", "\\|")


def _claim(number: int, claim: Claim) -> str:
    return f"{number}. Claimed: {claim.claimed}\n   Found: {claim.found}\n   **{claim.verdict.capitalize()}.**"


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
