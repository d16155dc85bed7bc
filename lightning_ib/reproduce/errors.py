"""The error of an experiment that was asked for in a wrong way, or lacks its data."""


class ExperimentError(Exception):
    """An experiment cannot be run as it was asked for: one sentence that says what came and what to do."""
