"""What runs inside a sandbox: the program, its tests, and what they speak to one another."""
