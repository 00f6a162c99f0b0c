"""Episodes: the policy and an environment take turns, token by token in one response."""
