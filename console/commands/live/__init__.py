"""Commands that look at a running run, or change it."""
