"""When a worker counts as lost (add new rules in loss_rules.py), and what follows: budgets, eviction, avoided hosts."""
