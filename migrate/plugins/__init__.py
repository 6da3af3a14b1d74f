"""Doors: pytest and avocado."""
