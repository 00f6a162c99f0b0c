"""The generated world of the demo: its language, its preferences and its hand-written gold reward."""
