"""Texts of a form that people write: it is told in words, not by the expression that checks it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True, slots=True)
class TextForm:
    """In ``Annotated[str, TextForm(…)]``: which texts are right.

    A refusal has the type ``text_form``, with ``words`` and ``example`` as its context.
    """

    pattern: str
    """A regular expression of the whole text, for JSON schemas too."""
    words: str
    example: str

    def fits(self, text: str) -> bool:
        """Whether it has this form."""
        return re.fullmatch(self.pattern.removeprefix("^").removesuffix("$"), text) is not None

    def _checked(self, text: str) -> str:
        if not self.fits(text):
            raise PydanticCustomError(
                "text_form", "{words}", {"words": self.words, "example": self.example}
            )
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}
