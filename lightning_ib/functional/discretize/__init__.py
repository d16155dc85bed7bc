"""From real numbers to symbols: edges, cells, sketches, quantized networks."""
