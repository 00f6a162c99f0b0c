"""What several settings of a run must satisfy together: a ValueError says the rule, the values and the way out."""
