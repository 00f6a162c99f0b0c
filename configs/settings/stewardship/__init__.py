"""Settings of how a run treats people: what is looked for in its data, and how its reward's bias is measured."""
