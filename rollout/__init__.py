"""Sampling: requests, responses as records, weight sync (a publish) and its proof, the journal (all responses)."""
