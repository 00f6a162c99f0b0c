"""The live display of a terminal, and what it is made of."""
