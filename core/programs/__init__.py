"""Processes that run code of the user's: where that stands, what it sees of a run, and messages to and from it."""
