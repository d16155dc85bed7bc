"""How layers, inputs and targets are discretized: bins, quantizers, cells, and fitted quantizers."""

from lightning_ib.binning.bins import Bins, FixedBins, QuantileBins, UniformBins
from lightning_ib.binning.quantizer import CellQuantizer, Quantizer

__all__ = ["Bins", "CellQuantizer", "FixedBins", "QuantileBins", "Quantizer", "UniformBins"]
