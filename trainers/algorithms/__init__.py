"""What papers define, as pure functions of tensors: losses, advantages, KL. Add new ones here."""
