"""All that touches vLLM: the sampler, its engine settings, what vLLM serves."""
