"""When a worker counts as lost (add new rules in loss_rules.py), and what is done then: budgets, eviction, avoided hosts."""
