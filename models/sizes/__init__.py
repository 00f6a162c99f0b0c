"""Sizes of models, and the memory that workers take by them: known before anything is loaded."""
