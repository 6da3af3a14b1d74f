"""Lines of a log, of bounded length: whoever writes it may be out of its mind, or obey a guest."""

from __future__ import annotations

from collections.abc import Iterator

LINE = 8192
"""Characters of a line that are read; what QEMU, libvirt and OVS write is far shorter."""
CUT = " …"
"""The end of a line that was cut."""


def cut(line: str) -> str:
    """A line of at most :data:`LINE` characters."""
    return line if len(line) <= LINE else f"{line[: LINE - len(CUT)]}{CUT}"


def whole_lines(log: str) -> Iterator[str]:
    """Those that have ended: the last one may be cut short."""
    return (cut(line) for line in log.split("\n")[:-1])


def last_lines(text: str, count: int, *, whole: bool = True) -> str:
    """The last lines of a text, cut; not ``whole``: it may begin within a line, which is left out
    if there is another."""
    lines = text.split("\n")
    ended = lines[-1:] == [""]
    lines = lines[:-1] if ended else lines
    if not whole and len(lines) > 1:
        lines = lines[1:]
    kept = "\n".join(map(cut, lines[-count:]))
    return f"{kept}\n" if ended and kept else kept
