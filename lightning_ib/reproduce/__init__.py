"""Experiments of published papers in one command each: ``lightning-ib reproduce``."""
