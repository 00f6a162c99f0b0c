"""Rewards behind one protocol: text in, a score out. Add new ones here, settings in the union RewardPart."""
