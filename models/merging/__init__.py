"""Adapters made into other things: weighted sums of several, and full models."""
