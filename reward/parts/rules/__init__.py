"""Kinds of rules: of each the module that opens it, `KIND_part.py`."""
