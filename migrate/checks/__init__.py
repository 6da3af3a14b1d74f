"""Findings in, verdicts out."""
