"""Inference engines behind one protocol. Add new ones here."""
