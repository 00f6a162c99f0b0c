"""The loop of every online RL algorithm: sample, score, learn, publish (weight sync to the rollout workers)."""
