"""Formats of other programs, decoded: virtqueues, features, migration streams, logs."""
