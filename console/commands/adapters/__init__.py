"""Commands over a library of adapters."""
