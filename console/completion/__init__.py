"""What a shell is told when Tab is pressed."""
