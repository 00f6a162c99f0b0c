"""The folder of a run: lock, input digests, status, connection file."""
