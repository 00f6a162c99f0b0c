"""Settings of what runs in processes of its own."""
