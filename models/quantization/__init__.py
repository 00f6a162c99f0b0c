"""Frozen weights of few bits: which of a model they are, how they are loaded, and what they are as floats."""
