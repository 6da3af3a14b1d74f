"""A guest to act on by hand: what a test says of it, of its hosts, and of its moves."""
