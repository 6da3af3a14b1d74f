"""A lab that another version of this program brought up can be told of, and taken down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from migrate.errors import HostError
from migrate.lab import fabric_kind
from migrate.lab.local.config import LocalConfig
from migrate.lab.state import JOURNAL, new_record, read_record, read_remains

OTHERS: dict[str, dict[str, Any]] = {
    "a field of later": {"colour": "green"},
    "a kind of later": {"config": {"kind": "moon", "name": "paper", "gravity": 1.6}},
    "no config at all": {"config": None},
    "a note that is a list": {"note": ["one"]},
}


def journal(folder: Path, **changes: object) -> bytes:
    roots = {"debian-13": Path("/cache/debian-13")}
    record = new_record(LocalConfig(name="paper"), roots, "mlab-paper-{}", folder.parent)
    document = {**json.loads(record.model_dump_json()), **changes}
    document["hosts"] = [{**host, "of_later": 1} for host in document["hosts"]]
    return json.dumps(document).encode()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_to_be_removed_is_read_whatever_the_version(name: str, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(text := journal(tmp_path, **OTHERS[name]))
    with pytest.raises(HostError, match=r"another version.*lab down --name"):
        read_record(tmp_path)
    remains = read_remains(tmp_path, text)
    assert remains.namespaces[:2] == ("mlab-paper-a", "mlab-paper-b")
    assert remains.namespaces[-1] == "mlab-paper"


@pytest.mark.parametrize("name", OTHERS)
def test_lab_down_takes_it_away(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    folder = tmp_path / "paper"
    (folder / "a").mkdir(parents=True)
    (folder / JOURNAL).write_bytes(journal(folder, **OTHERS[name]))
    monkeypatch.setattr(fabric_kind, "state_folder", lambda: tmp_path)
    monkeypatch.setattr(fabric_kind, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(fabric_kind, "_must_be_root", lambda: None)
    monkeypatch.setattr(fabric_kind, "_remove_namespace", lambda ns, _deadline: removed.append(ns))
    fabric_kind.down("paper")
    assert "mlab-paper-a" in removed
    assert removed[-1] == "mlab-paper"
    assert not folder.exists()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"fabric": "eth0", "hosts": []}', b"\xff"])
def test_one_that_says_nothing_is_told_with_what_to_do(text: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(text)
    with pytest.raises(HostError, match="ip netns"):
        read_remains(tmp_path, text)
