"""Ray, and nothing else: connection, workers, their placement, the fleet."""
