"""The peer, TRL: one script for each of its trainers, at its defaults and at its own best settings."""
