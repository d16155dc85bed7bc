"""What is recorded: points and estimates, their CSV, the names they are logged under, whether they are reliable."""

from lightning_ib.records.history import Estimate, InformationPoint, read_csv
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.records.tags import parse_tag, tag

__all__ = ["Estimate", "InformationPoint", "VerdictWarning", "parse_tag", "read_csv", "tag"]
