"""Rules that compare with the right answer of a prompt's row."""
