"""Learning: algorithms, the learner, the loops online and offline, metrics."""
