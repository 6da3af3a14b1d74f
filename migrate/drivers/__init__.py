"""One door for each outside library and program."""
