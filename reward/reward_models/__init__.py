"""Reward models: opening them, the form in which they read a dialogue, their scores and the calibration of these."""
