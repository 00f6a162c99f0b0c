"""Commands for who begins: a first file of settings, and a shell that knows the rest."""
