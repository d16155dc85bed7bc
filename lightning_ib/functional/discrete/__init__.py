"""Counting: entropies and informations of symbols, their corrections, errors and baselines."""
