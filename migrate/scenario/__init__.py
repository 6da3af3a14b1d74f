"""Scenario files: TOML in, cases out."""
