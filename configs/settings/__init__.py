"""The sections of a run, a file for each folder that reads them; a new variant of a choice stands here."""
