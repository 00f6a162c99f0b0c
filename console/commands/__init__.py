"""The commands, one file each. Add new ones here, and a line in console/cli.py."""
