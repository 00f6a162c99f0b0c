"""The benchmark: Plumbob against what a user would take instead, on the same work. Not installed: `make bench`."""
