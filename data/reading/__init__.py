"""Files to rows to records: the field names that rows may have, and what becomes of each row."""
