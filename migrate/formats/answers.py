"""What hosts and programs answer, held against the shape in which it is read.

A door says by a :class:`Shape` what it reads of an answer. Anything else that comes is a
:class:`MalformedError`: what was asked, of which host, what is wrong in it, and its begin. So
nothing behind a door indexes what a host made up: no key is missing there, no list is a number, no
number is infinite or longer than 64 bits, no text has half of a surrogate pair.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from migrate.errors import HostError

T = TypeVar("T")

MOST_TEXT = 64 << 20
"""Characters or bytes of JSON or XML that are looked at: far more than any program says."""
SHOWN = 200
"""Characters of an answer that an error quotes."""
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A number of something, as 64 bits hold it."""
Unsigned = Annotated[int, Field(ge=0, lt=1 << 64)]
"""An address, or a mask: 64 bits."""
Signed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


class MalformedError(HostError):
    """Something was answered, and it is not of the shape in which it is read."""


class Part(BaseModel):
    """What is read of an object in an answer; keys that nobody reads are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class QapiPart(Part):
    """The same of QEMU's, which has dashes where Python has underscores."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))


class Shape(Generic[T]):
    """What an answer has to be, by its type: ``Shape(dict[str, Link])``."""

    def __init__(self, kind: type[T]) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(kind, config=_config(kind))

    def parse(self, text: str | bytes, asked: str, *, host: str = "") -> T:
        """The answer in a JSON text. Raises MalformedError."""
        if len(text) > MOST_TEXT:
            raise MalformedError(asked, host=host, said=f"it answered with {len(text)} characters")
        try:
            return self._adapter.validate_json(_bytes(text))
        except ValidationError as error:
            raise MalformedError(asked, host=host, said=_reason(error, text)) from error

    def of(self, answer: object, asked: str, *, host: str = "") -> T:
        """An answer that a library has made of JSON already. Raises MalformedError."""
        return self.parse(_text(answer, asked, host), asked, host=host)


def plain(answer: object, asked: str, *, host: str = "") -> Any:
    """An answer that is kept as it is: whatever JSON can say. Raises MalformedError."""
    text = _text(answer, asked, host)
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        said = f"it can't be kept: {error}: {quote(text)}"
        raise MalformedError(asked, host=host, said=said) from error


def whole_number(text: str, asked: str, *, host: str = "", base: int = 10) -> int:
    """A whole number of at most 64 bits in a text, blanks around it. Raises MalformedError."""
    digits = r"\s*[0-9]{1,19}\s*" if base == 10 else r"\s*(0[xX])?[0-9a-fA-F]{1,16}\s*"
    if re.fullmatch(digits, text) is None:
        raise MalformedError(asked, host=host, said=f"it is no number: {quote(text)}")
    return int(text, base)


def quote(text: str | bytes) -> str:
    """The begin of an answer, in quotes."""
    begin = text[: SHOWN + 1]
    words = begin if isinstance(begin, str) else begin.decode(errors="replace")
    return repr(words) if len(text) <= SHOWN else f"{words[:SHOWN]!r}…"


def _config(kind: object) -> ConfigDict | None:
    """Parts have their own; a union of them, a list or a number has none yet."""
    own = isinstance(kind, type) and issubclass(kind, BaseModel)
    return None if own else ConfigDict(strict=True, allow_inf_nan=False)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode(errors="surrogatepass")


def _text(answer: object, asked: str, host: str) -> bytes:
    try:
        return to_json(answer)
    except PydanticSerializationError as error:
        why = str(error).removeprefix("Error serializing to JSON: ")
        raise MalformedError(asked, host=host, said=f"its answer can't be kept: {why}") from error


def _reason(error: ValidationError, text: str | bytes) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}: {quote(text)}" if place else f"{first['msg']}: {quote(text)}"
