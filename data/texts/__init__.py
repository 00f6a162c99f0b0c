"""Texts between a file and a model: what of them are control tokens, how they become ids and come back, chat turns."""
