"""Rules: what a response is worth by a function of its text and, for some, of the prompt's row."""
