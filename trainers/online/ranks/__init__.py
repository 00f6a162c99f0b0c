"""A step on the ranks: each has its own rows of it, computes and learns from them, and writes them down."""
