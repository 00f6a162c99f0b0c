"""What the pages show of the journal and of held-out pairs, read by column."""
