"""Others' formats, decoded."""
