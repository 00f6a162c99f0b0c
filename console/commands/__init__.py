"""The commands, one file each; a new command stands here."""
