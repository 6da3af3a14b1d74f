"""How a network interface is backed: a folder for each mode."""
