"""What mkdocs asks while it builds the site, see mkdocs.yml.

README is the first page, and each file of the repository that a page links to is a page of its own: the site needs
neither a network nor a place where the repository lies.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "sh", ".toml": "toml", ".json": "json"}
_EXAMPLE = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Our docstrings say ``Example:``, which the parser takes for a note, and its doctest for prose with links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of every class and function."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", obj.docstring.value)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add README, and what pages link to, and what that links to."""
    texts = {file.src_uri: file.content_string for file in files if file.src_uri.endswith(".md")}
    unread = ["README.md"]
    while unread:
        target = unread.pop()
        page = _page(target)
        if page in texts:
            continue
        text = _content(target)
        texts[page] = text
        files.append(File.generated(config, page, content=text))
        if not unread:
            linked = {found for page, text in texts.items() for found in _targets(page, text)}
            unread = sorted(found for found in linked if _page(found) not in texts)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Have links that leave the folder of the documents lead to pages."""
    here = page.file.src_uri

    def led(match: re.Match[str]) -> str:
        target = _in_repository(here, match[1])
        if target is None:
            return match[0]
        up = "../" * here.count("/")
        return f"]({up}{_page(target)}{match[2] or ''})"

    return _LINK.sub(led, markdown)


def _in_repository(page: str, link: str) -> str | None:
    """The path that a link of a page means, from the repository's root; None for an address, or what is not there."""
    if "://" in link or link.startswith("mailto:") or page.startswith("source/"):
        return None
    is_at_root = page == "index.md" or (ROOT / page).is_file()
    folder = Path() if is_at_root else Path("docs", page).parent
    path = normpath((folder / link).as_posix())
    return path if (ROOT / path).exists() else None


def _targets(page: str, text: str) -> set[str]:
    found = {_in_repository(page, link) for link, _ in _LINK.findall(text)}
    return {target for target in found if target is not None and not _is_document(target)}


def _is_document(target: str) -> bool:
    """Whether a path of the repository is in the site without our doing."""
    return target.startswith("docs/")


def _page(target: str) -> str:
    """The page of a path of the repository."""
    if _is_document(target):
        return target.removeprefix("docs/")
    if target == "README.md":
        return "index.md"
    if target.endswith(".md") and "/" not in target:
        return target
    return f"source/{target}.md"


def _content(target: str) -> str:
    """The page of a file, or of a folder's names."""
    path = ROOT / target
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        shown = [name for name in names if not name.startswith((".", "__"))]
        return f"# {target}\n\n" + "".join(f"- `{name}`\n" for name in shown)

    text = path.read_text(encoding="utf-8")
    if not _page(target).startswith("source/"):
        return text
    language = _LANGUAGES.get(path.suffix, "text")
    return f"# {target}\n\n````{language}\n{text}\n````\n"
