"""Environments that come with Plumbob: plain classes, as a user would write them."""
