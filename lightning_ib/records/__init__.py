"""Results: records, their history and CSV file, the tags they are logged under, and reliability flags."""

from lightning_ib.records.correlation import RankCorrelation
from lightning_ib.records.history import History
from lightning_ib.records.measurement_json import (
    history_to_json,
    measurement_from_json,
    measurement_to_json,
    measurements_of,
)
from lightning_ib.records.phases import phase_transition
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.pruning import earliest_layer
from lightning_ib.records.record import Record
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.records.tags import Tag, format_tag, parse_tag

__all__ = [
    "History",
    "InformationPoint",
    "RankCorrelation",
    "Record",
    "Tag",
    "VerdictWarning",
    "earliest_layer",
    "format_tag",
    "history_to_json",
    "measurement_from_json",
    "measurement_to_json",
    "measurements_of",
    "parse_tag",
    "phase_transition",
]
