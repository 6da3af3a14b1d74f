"""The project's files that are read and not imported: templates, recipes, sources, scenarios, labs.

In the tree they lie at its top, where people look for them; a wheel carries them inside the
package. Here they are found in both.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_data"
"""Made by the build (``pyproject.toml``); not in the tree."""
ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent
"""What the tree's top folders are found below: ``domains``, ``guest-images``, ``labs`` …"""


def data_path(path: str) -> Path:
    """A file or folder of the project, as it is called from the tree's top."""
    return ROOT / path


def shipped(path: Path) -> Path:
    """``path`` if it exists, else the project's own of that name, if there is one.

    So ``labs/nested.toml`` is a lab file in every working folder.
    """
    ours = ROOT / path
    return ours if os.path.lexists(ours) and not os.path.lexists(path) else path
