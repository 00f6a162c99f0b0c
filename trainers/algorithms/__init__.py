"""What papers define, as pure functions of tensors: losses, advantages, KL. A new loss stands here."""
