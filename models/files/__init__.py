"""The files of a model's folder: its weights, its tokenizer; each is checked before it is used."""
