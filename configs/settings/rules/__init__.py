"""Settings of rules: parts of a reward that are functions of a text, and instructions that a program can verify."""
