"""Commands over the result of a run, or any policy: talk with it, serve it, export it, upload it."""
