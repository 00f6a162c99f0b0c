"""Commands that measure: models on data, methods beside each other, the trainers where the best policy is known."""
