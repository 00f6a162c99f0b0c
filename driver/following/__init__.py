"""Following a run from elsewhere: what it reports is passed to a listener as if it ran here."""
