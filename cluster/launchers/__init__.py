"""Ways to start a run elsewhere; a new launcher stands here."""
