"""The run folder: written, read, indexed, pruned."""
