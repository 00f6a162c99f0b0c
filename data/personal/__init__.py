"""Personal data in texts: found by patterns with checksums and by a model of names, and replaced by pseudonyms."""
