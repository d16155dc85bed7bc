"""Whole measurements for the page in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_ib.records.tags import PLUGIN, measurement_tag
from lightning_ib.warn_once import WarnOnce


def log_measurement(loggers: Iterable[Any], prefix: str, measurement: str, step: int, warned: WarnOnce) -> None:
    """Hand a measurement to every logger that writes for TensorBoard, as a tensor of one string.

    Args:
        loggers: those of the Trainer.
        prefix: the first part of its name.
        measurement: as JSON, from :func:`~lightning_ib.records.measurement_json.measurement_to_json`.
        step: the step of its scalars.
        warned: issues each warning once.
    """
    for logger in loggers:
        with warned.on_error(f"{type(logger).__name__} could not log the measurement for the page of TensorBoard"):
            writer = getattr(getattr(logger, "experiment", None), "file_writer", None)
            if (add_summary := getattr(writer, "add_summary", None)) is not None:
                add_summary(_summary(measurement_tag(prefix), measurement), global_step=step)


def _summary(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN), data_class=DATA_CLASS_TENSOR)
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=TensorShapeProto())
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
