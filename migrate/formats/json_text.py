"""JSON that others wrote: read within bounds, as text that can be written again."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json


def parse(text: bytes | str) -> Any:
    """One document. ValueError: it is none, or nested deeper than 200, or it has a number that is
    not finite or of more than 4300 digits, or text that is no Unicode (half of a surrogate pair).
    """
    return from_json(text, allow_inf_nan=False)
