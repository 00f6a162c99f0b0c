"""Where each objective must end, in float64 numpy; imports no trainer."""
