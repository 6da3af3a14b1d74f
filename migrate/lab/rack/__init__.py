"""Hosts that are there already."""
