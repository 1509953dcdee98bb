"""Measurements: ratios within one run, against a named baseline."""
