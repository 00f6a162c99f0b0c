"""Rewards behind one protocol: text in, a score out; a new reward stands here."""
