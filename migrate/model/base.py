"""The base of all values: frozen, closed to unknown keys, units in names, None = not measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
"""Schema of the run folder; a newer reader reads older numbers."""


class Value(BaseModel):
    """A frozen value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]


NotNegative = Annotated[float, Field(ge=0)]


Said = Annotated[str, Field(min_length=1)]
