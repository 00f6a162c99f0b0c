"""Kinds of parts of a reward: of each the module that opens it, `KIND_part.py`."""
