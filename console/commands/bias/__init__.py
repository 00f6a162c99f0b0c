"""Commands that measure bias."""
