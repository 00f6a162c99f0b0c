"""Commands over files of data."""
