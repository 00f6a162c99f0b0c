"""What a run keeps of how it treats people: of its data, what is in it."""
