"""What `plumbob doctor` looks at: packages, the machine, its arithmetic, and each engine in a process of its own."""
