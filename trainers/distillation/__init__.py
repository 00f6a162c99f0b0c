"""On-policy distillation: the teachers of a run."""
