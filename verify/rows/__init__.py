"""Rows of the table: an objective, its settings and its bound."""
