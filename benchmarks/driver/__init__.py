"""What a step of online learning costs its driver, by the number of responses and of workers (`make bench-driver`)."""
