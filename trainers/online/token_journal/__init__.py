"""What a step leaves in the journal of each of its responses, token by token."""
