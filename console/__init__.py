"""What a person touches: the command line, displays, the report."""
