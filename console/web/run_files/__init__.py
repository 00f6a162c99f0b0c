"""What the pages show of a run's small files: which runs there are, their steps, events, logs and times."""
