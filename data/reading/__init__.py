"""Files to rows to records: file formats, and the field names that rows may have."""
