"""Rewards by programs that run in processes of their own: the user's functions, and what the policy wrote."""
