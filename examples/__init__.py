"""Scripts that write inputs for a preset, or a program of the user's that it is given. Not installed."""
