"""What a run will need, told before anything starts: tokens, batches, memory, and what would make it fit."""
