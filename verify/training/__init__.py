"""The real trainers on tiny worlds, on exact or drawn data."""
