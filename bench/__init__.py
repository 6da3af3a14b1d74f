"""Ground truth for the instrument itself: each module is run as ``python -m bench.NAME``."""
