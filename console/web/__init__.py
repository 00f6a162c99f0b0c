"""The pages of `plumbob ui`: a server that reads run folders, and what its pages ask it for."""
