"""Where steps are written: one module a sink."""
