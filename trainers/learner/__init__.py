"""One learner rank: DeepSpeed, optimizer steps, checkpoints, export."""
