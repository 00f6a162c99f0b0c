"""What is wrong with a data set, counted: duplicates, leaks, thin places, labels that contradict one another."""
