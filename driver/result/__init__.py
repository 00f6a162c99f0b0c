"""What people do with the result of a run: talk with it, serve it, hand it on."""
