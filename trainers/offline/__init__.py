"""Stages on a fixed data set: pre-training, SFT, reward models, DPO family, KTO."""
