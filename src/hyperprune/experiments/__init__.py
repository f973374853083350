"""Published tables and figures, run again: one recipe per table, resumable, ending in records and a table."""
