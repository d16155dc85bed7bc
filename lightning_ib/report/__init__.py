"""Where records go: loggers by what they can do, files, the layout of TensorBoard."""
