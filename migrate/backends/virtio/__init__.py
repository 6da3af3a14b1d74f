"""A tap on a bridge."""
