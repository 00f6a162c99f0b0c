"""What the live display of a terminal is made of."""
