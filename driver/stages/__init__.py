"""One module for each kind of run: what it needs, what it prepares, how it runs."""
