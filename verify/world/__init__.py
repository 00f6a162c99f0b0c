"""The tiny world that is verified on, as a model and settings on disk."""
