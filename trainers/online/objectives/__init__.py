"""Online objectives that learn something else than each response's weighted tokens."""
