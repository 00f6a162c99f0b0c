"""A first file of settings, from a few answers."""
