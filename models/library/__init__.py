"""A library of adapters: a folder of PEFT folders, each with what it was trained for, on and from, and how well."""
