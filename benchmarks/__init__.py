"""Measurements, never assertions: `python -m benchmarks`."""
