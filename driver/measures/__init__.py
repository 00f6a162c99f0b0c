"""What is measured of responses that policies gave to the same prompts: metrics, comparisons, tables of them."""
