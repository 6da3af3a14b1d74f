"""Listening while something else acts."""
