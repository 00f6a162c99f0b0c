"""What no step can be faster than, and no learner smaller than: a step's parts alone, and rows against them."""
