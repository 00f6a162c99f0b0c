"""How long a run takes, told beforehand: what this machine multiplies, and what the run's stages make of it."""
