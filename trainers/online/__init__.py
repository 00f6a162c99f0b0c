"""The online loop of PPO and its kin: sample, score, learn, publish."""
