"""Following a run from elsewhere: what it reports is told to a listener as if it ran here."""
