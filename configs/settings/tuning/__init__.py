"""What of a policy is trained. New methods go into adapters.py, soft_prompts.py or weights.py."""
