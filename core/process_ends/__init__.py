"""How processes end: asked to stop, by a crash, or with the one that started them."""
