"""What weights of few bits cost a real model."""
