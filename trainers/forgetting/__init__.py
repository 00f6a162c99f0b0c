"""Catastrophic forgetting: text that is measured (retention) or learnt on beside the stage (replay)."""
