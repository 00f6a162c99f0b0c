"""Ways to start a run elsewhere. Add new ones here, and a line in console/commands/submit.py."""
