"""The pages as a site: each has a kind, is built offline, and leads somewhere by every link."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from selftests.helpers import ROOT

PROJECT = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
HOME = "README.md"


def kinds() -> dict[str, list[str]]:
    """Pages by kind, as the site's navigation has them."""
    return {
        kind: pages
        for entry in PROJECT["nav"]
        for kind, pages in entry.items()
        if isinstance(pages, list)
    }


def indexed() -> dict[str, list[str]]:
    """The same, as the index has them."""
    text = (ROOT / "docs" / HOME).read_text()
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    return {
        kind: re.findall(r"^\| \[.*?\]\(([\w-]+\.md)\) \|", part, re.MULTILINE)
        for kind, part in zip(parts[::2], parts[1::2], strict=True)
        if kind in kinds()
    }


def test_each_page_is_of_one_kind() -> None:
    listed = [page for pages in kinds().values() for page in pages]
    assert list(kinds()) == ["Tutorial", "How to", "Reference", "Explanation"]
    assert sorted(listed) == sorted({path.name for path in (ROOT / "docs").glob("*.md")} - {HOME})


def test_the_index_has_the_pages_as_the_site_has_them() -> None:
    assert indexed() == kinds()


def test_the_index_calls_a_page_by_its_title() -> None:
    index = (ROOT / "docs" / HOME).read_text()
    for page in (page for pages in kinds().values() for page in pages):
        title = (ROOT / "docs" / page).read_text().partition("\n")[0].removeprefix("# ")
        assert f"| [{title}]({page}) |" in index


def test_lists_and_tables_begin_after_an_empty_line() -> None:
    """Else the site's Markdown takes them for a part of the sentence before; GitHub's does not."""
    for path in (ROOT / "docs").glob("*.md"):
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        glued = re.findall(r"^(?![-|\s]|\d+\. ).+\n(?:- |\d+\. |\|).*", text, re.MULTILINE)
        assert glued == [], path.name


def test_no_page_leads_out_of_the_site() -> None:
    """What stands beside docs/ is named, and not linked: the site has no such file."""
    for path in (ROOT / "docs").glob("*.md"):
        assert "](../" not in path.read_text(), path.name


# --- built --------------------------------------------------------------------------------------


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the pages."""
    pytest.importorskip("zensical", reason="the extra docs is not installed")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    return tmp_path


def test_the_site_is_built_and_loads_nothing_from_elsewhere(project: Path) -> None:
    done = build(project)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((project / "build/site").glob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link[^>]* href=\"?([^\" >]+)", text)
        assert loaded
        assert [address for address in loaded if "//" in address] == [], page.name
    styles = "".join(path.read_text() for path in (project / "build/site").rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles) == []


@pytest.mark.parametrize("target", ["nowhere.md", "checks.md#nothing"])
def test_a_link_that_leads_nowhere_fails_the_build(target: str, project: Path) -> None:
    page = project / "docs/machine.md"
    page.write_text(f"{page.read_text()}\n[a link]({target})\n")
    done = build(project)
    assert done.returncode != 0
    assert "does not exist" in done.stdout + done.stderr


def test_the_check_builds_the_site() -> None:
    assert '"$bin/zensical" build --strict' in (ROOT / "check").read_text()
