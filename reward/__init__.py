"""Rewards behind one protocol: text in, a score out. A new kind stands in `parts/`, its settings in RewardPart."""
