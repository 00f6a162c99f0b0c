"""Sampling: requests, responses as records, the proof of a publish, the journal."""
