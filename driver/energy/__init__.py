"""The energy of a run: counted on the driver's host, step by step."""
