"""Whether two measurements differ by more than chance."""
