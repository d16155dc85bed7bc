"""Destinations of records: loggers, by their abilities, files, and the layout of TensorBoard."""
