"""Rows out of files, by their format, each within bounds."""
