"""Bias of a reward: how far its scores depend on which group of people a text names."""
