"""Pure: a recording in, findings out."""
