"""What runs on Ray (connection, workers, their placement, the fleet), and how a run is sent to a cluster."""
