"""The geometry of a representation: spectra, classes, and how similar two representations are."""
