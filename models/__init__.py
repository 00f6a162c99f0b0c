"""Opening models; the policy in its roles; adapters; weights on disk."""
