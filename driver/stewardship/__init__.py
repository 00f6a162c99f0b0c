"""How a run and its models treat people: what is in its data, and how biased its models are."""
