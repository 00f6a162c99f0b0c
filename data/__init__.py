"""Records, chat, prompts, tokenization, splitting; the generated toy world."""
