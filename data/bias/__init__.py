"""What bias is measured on: terms that name groups and their swaps, CrowS-Pairs, BBQ."""
