"""The content of README.md and docs/: fenced blocks with their marks, commands in prose, links.

A block of commands, Python or YAML may have a mark, an HTML comment on the line before it, which
no reader sees::

    <!-- needs: COCO, GPU -->         not run: what it needs; "network" alone is replaced
    <!-- takes minutes -->            (or hours) shortened by ``make test-slow``, or only checked
    <!-- slow -->                     run as it stands by ``make test-slow``
    <!-- file: configs/fruit.yaml --> the content of a file of the reader's, which is loaded
    <!-- output -->                   what the Python before it prints, compared if that is run

Without a mark it is run as it stands.  ``text`` is a block that is not for running.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

LANGUAGES = {"bash", "python", "yaml", "text", "{eval-rst}"}
PROJECTS = {"Mask2Former", "MaskDINO", "detrex", "mmpretrain"}
NEEDS = {
    "COCO",
    "ADE20K",
    "ImageNet",
    "GPU",
    "several machines",
    "Slurm",
    "network",
    "peft",
    "account",
    *PROJECTS,
}
TAKES = ("takes minutes", "takes hours")

FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.M)
MARK = re.compile(r"<!-- ([^\n]+?) -->\n\s*$")
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: ``mark`` is the kind, or "" if there is none, ``detail`` its words.

    ``output`` is what it prints, if the page shows it.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str
    detail: str
    output: str | None = None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def details(self) -> list[str]:
        return self.detail.split(", ") if self.detail else []

    @property
    def commands(self) -> list[list[str]]:
        return commands(self.text)


def blocks_of(page: Path) -> list[Block]:
    text, found = page.read_text(encoding="utf-8"), []
    for fence in FENCE.finditer(text):
        mark = MARK.search(text, 0, fence.start())
        kind, _, detail = mark[1].partition(": ") if mark else ("", "", "")
        line = text.count("\n", 0, fence.start()) + 1
        if kind == "output":
            found[-1] = replace(found[-1], output=fence[3])
        found.append(Block(page, line, fence[2].strip(), fence[3], kind, detail))
    return found


def commands(text: str) -> list[list[str]]:
    """Return the words of every command of a shell script without control flow."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_commands(page: Path) -> list[list[str]]:
    """Return the commands between backticks in prose."""
    spans = (" ".join(span.split()) for span in CODE.findall(prose_of(page)))
    return [shlex.split(span) for span in spans if is_command(span)]


def is_command(line: str) -> bool:
    """Return whether a line looks like a command: a script with arguments, make, pip, ..."""
    starts = r"\.venv/bin/|tools/\w+\.py +\S|make +\w|pip |python |torchrun |swinv2 +[a-z]"
    return re.match(rf"\s*(?:{starts})", line)


def links_of(page: Path) -> list[str]:
    """Return the relative targets of links and pictures."""
    targets = LINK.findall(CODE.sub("", prose_of(page)))
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
