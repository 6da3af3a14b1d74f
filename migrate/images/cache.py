"""What lies in the cache, by what it was made of."""

from __future__ import annotations

import hashlib


def digest(*parts: str) -> str:
    """A short name for what a saved state depends on."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(f"{len(part)}:{part}".encode())
    return whole.hexdigest()[:20]
