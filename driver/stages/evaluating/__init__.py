"""The stage that measures models: on pairs, and on prompts against one another."""
