"""Commands over a folder of runs."""
