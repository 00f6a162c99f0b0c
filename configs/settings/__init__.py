"""The sections of a run. A new variant of a choice stands beside the others of its union."""
