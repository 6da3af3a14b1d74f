"""Hosts made ready, and put back."""
