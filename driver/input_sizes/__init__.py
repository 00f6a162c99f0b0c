"""How much there is of what a run reads: tokens of its inputs, and the rows that its learners compute."""
