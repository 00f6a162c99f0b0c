"""Calls of tools in a policy's text: by the conventions of chat templates, or as a tokenizer says."""
