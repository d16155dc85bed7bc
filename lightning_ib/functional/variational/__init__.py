"""Estimators that train something: probes and critics."""
