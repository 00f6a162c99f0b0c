"""What a forward need not compute: logits that nobody asked about, and a prompt for each of its responses."""
