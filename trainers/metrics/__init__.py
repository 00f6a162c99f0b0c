"""Metrics of a run: records, and the sinks that they go to."""
