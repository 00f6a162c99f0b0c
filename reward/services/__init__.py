"""Rewards that another process gives: an endpoint that scores batches, and the server of a trained reward model."""
