"""The sections of a run, a file for each folder that reads them. Add new variants of a choice here."""
