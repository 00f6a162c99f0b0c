"""Seeded mutations of all that comes from outside: each is taken, or refused with one message, in bounded time."""
