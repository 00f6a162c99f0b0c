"""How a step comes by its responses: sampled and scored, before or beside learning, and what became of each."""
