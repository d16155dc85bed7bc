"""What is recorded: records, their history and CSV file, the names they are logged under, whether they are reliable."""

from lightning_ib.records.history import History
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import Record
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.records.tags import Tag, format_tag, parse_tag

__all__ = ["History", "InformationPoint", "Record", "Tag", "VerdictWarning", "format_tag", "parse_tag"]
