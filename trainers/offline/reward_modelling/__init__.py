"""The reward model: trained on human feedback, and calibrated."""
