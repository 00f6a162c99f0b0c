"""When a worker counts as lost (worker_loss_rules.py, new rules too), and what follows: budgets, eviction."""
