"""Inference engines behind one protocol; a new one stands here."""
