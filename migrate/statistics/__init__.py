"""Spread and regression over attempts and runs."""
