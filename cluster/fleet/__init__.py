"""Workers that come, go and are replaced: pools, reservations, the learner group, autoscaling."""
