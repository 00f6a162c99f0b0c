"""Settings of what is measured while a run is running: what is watched, and where else the metrics go."""
