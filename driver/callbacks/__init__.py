"""What a program that calls the Python API is called back with."""
