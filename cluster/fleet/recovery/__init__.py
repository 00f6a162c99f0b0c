"""What is done about a lost worker; a new recovery rule stands here."""
