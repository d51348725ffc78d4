"""The rows of docs/RELIABILITY.md that are tests: each file's ``reliability`` tests are a case."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from reliability.processes import own_environment
from reliability.work import Work

REPOSITORY = Path(__file__).resolve().parents[2]
TITLE = "figures for docs/RELIABILITY.md"  # of the section that tests/conftest.py prints
FIGURE = re.compile(r"[\w.]+: ")  # behind it are the counts of pytest
SKIPPED = re.compile(r"(\d+) skipped")
PATIENCE = 3600  # seconds


def run_tests(work: Work, file: str) -> str:
    """Run the tests of a file in a process of their own; return the figures that they print."""
    words = ["-m", "pytest", "-m", "reliability", "-q", "-rfE", str(REPOSITORY / "tests" / file)]
    with (work.folder / "pytest.txt").open("w", encoding="utf-8") as out:
        try:
            done = subprocess.run(
                [sys.executable, *words, f"--basetemp={work.folder / 'tests'}"],
                cwd=REPOSITORY,
                env=own_environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
            ).returncode
        except subprocess.TimeoutExpired:
            done = -1
    text = (work.folder / "pytest.txt").read_text(encoding="utf-8")
    failed = re.findall(r"^(?:FAILED|ERROR) .*::(\S+)", text, re.MULTILINE)
    work.expect(done == 0, f"{file}: exit code {done}: {', '.join(failed)}")
    work.times = sum(map(int, re.findall(r"(\d+) passed", text)))
    skipped = [f"{count} not run: a package is missing" for count in SKIPPED.findall(text)]
    return "; ".join([*figures(text), *skipped])


def figures(text: str) -> list[str]:
    """Return the figures that tests have recorded."""
    _, _, rest = text.partition(TITLE)
    lines, _, _ = rest.partition("\n=")  # the next section
    return [line for line in lines.splitlines() if FIGURE.match(line)]
