"""One rank of the learners as it works on rows that are its own, and what it exchanges with the others."""
