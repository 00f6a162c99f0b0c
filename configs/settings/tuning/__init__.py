"""What of a policy is trained: a variant of one setting for each method (any_tuning.py)."""
