"""The base of all values: frozen, closed to unknown keys, units in names, None = not measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1
"""Schema of the run folder; a newer reader reads older numbers."""


class Value(BaseModel):
    """A frozen value that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, validated as if it were made anew: pydantic's own is not.

        Raises ValidationError.
        """
        copy = super().model_copy(deep=deep)
        return type(self).model_validate({**dict(copy), **update}) if update else copy

    def with_(self, **fields: Any) -> Self:
        """The same but for these fields: ``case.with_(policy=case.policy.with_(hops=2))``.

        Raises ValidationError, also for a field that is not there.
        """
        return self.model_copy(update=fields)


Positive = Annotated[float, Field(gt=0)]


NotNegative = Annotated[float, Field(ge=0)]


Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
"""Somebody's wish for a length of time: a week at most."""


Milliseconds = Annotated[float, Field(gt=0, le=7 * 86_400_000)]
"""A limit: of a week at most."""


Mebibytes = Annotated[int, Field(ge=0, le=1 << 20)]
"""Of memory, or a second's: a tebibyte at most."""


Word = Annotated[str, Field(min_length=1, max_length=100)]


NonEmpty = Annotated[str, Field(min_length=1)]
