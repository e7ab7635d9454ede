"""The project's documents, parsed by a CommonMark parser: code blocks, links and headings.

The language of a code block determines its test: ``python`` and ``sh`` are executed as printed, ``py`` is compiled,
``bash`` is parsed by bash; ``text`` is output.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for folder in ("tim_async", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
    ]
)
"""Every document of the project."""
TRANSLATIONS = ("tim_async/README.zh-CN.md", "tim_async/README.ko.md")
"""The README's translations; each has the README's parts, in the same order."""


@dataclass(frozen=True)
class Document:
    """One Markdown file.

    Attributes:
        path: the file.
        text: its content, or a part of it.
    """

    path: Path
    text: str

    @classmethod
    def read(cls, name: str | Path) -> Document:
        """Read a document, by its path from the project's root."""
        path = ROOT / name
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """The path from the project's root."""
        return self.path.relative_to(ROOT).as_posix()

    def tokens(self) -> list[Token]:
        """Parse the text."""
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    def blocks(self, *languages: str) -> list[str]:
        """Return the fenced code blocks in some languages; without a language, all of them."""
        fences = [token for token in self.tokens() if token.type == "fence"]
        return [token.content for token in fences if not languages or token.info in languages]

    def parts(self) -> list[tuple[str, str, str]]:
        """Return the parts in order, each as its kind, tag and code.

        Parts are headings with their levels, paragraphs, list items, table rows and cells, and code blocks with their
        languages.
        """
        return [
            (f"{token.type} {token.info}".rstrip(), token.tag, token.content if token.type == "fence" else "")
            for token in self.tokens()
            if token.type != "inline"
        ]

    def code_names(self) -> set[str]:
        """Return the inline code of the prose, i.e. the texts in backquotes."""
        children = (child for token in self.tokens() for child in token.children or [])
        return {child.content for child in children if child.type == "code_inline"}

    def languages(self) -> set[str]:
        """Return the languages of all code blocks; "" for a block without one."""
        return {token.info for token in self.tokens() if token.type in ("fence", "code_block")}

    def links(self) -> Iterator[str]:
        """Yield the targets of all links."""
        for token in self.tokens():
            for child in token.children or []:
                if child.type == "link_open":
                    yield str(child.attrs["href"])

    def anchors(self) -> set[str]:
        """Return the anchors of the headings, as GitHub makes them."""
        tokens = self.tokens()
        seen: Counter[str] = Counter()
        found = set()
        for opening, inline in pairwise(tokens):
            if opening.type != "heading_open":
                continue
            title = "".join(child.content for child in inline.children or [])
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return found
