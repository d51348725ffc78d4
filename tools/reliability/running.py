"""Running a case once: its result is kept as JSON, and read the next time."""

from __future__ import annotations

import json
import platform
import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import swinv2_backbone
from reliability.cases import Case
from reliability.work import NotRunError, Work
from swinv2_backbone.checkpoints.durable import write_text

Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        output: Folder of the results and of the cases' folders.
        full: True for the long form.
        anew: True to run again what is done.
    """

    output: Path
    full: bool = False
    anew: bool = False

    @property
    def mode(self) -> str:
        return "full" if self.full else "short"

    def file(self, case: Case) -> Path:
        return self.output / f"{case.name}.json"


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "swinv2_backbone": swinv2_backbone.__version__,
    }


def is_done(case: Case, settings: Settings) -> bool:
    """Return True if a case has a result that need not be repeated.

    One of the long form counts also for the short form; one with losses, or of other versions,
    does not count.
    """
    result = read_result(case, settings)
    if result is None or settings.anew or result["lost"] or result["not_run"]:
        return False
    return result["versions"] == versions() and result["mode"] in ("full", settings.mode)


def run(case: Case, settings: Settings) -> Result:
    """Run a case unless it is done; return its result.

    Its folder is kept as evidence if something was lost, and otherwise removed.
    """
    if is_done(case, settings):
        print(f"{case.name}: done", flush=True)
        return json.loads(settings.file(case).read_text(encoding="utf-8"))
    print(f"{case.name}: running ({case.failure})", flush=True)
    folder = settings.output.absolute() / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)  # a disk may still be mounted in it
    begun, work = time.monotonic(), Work(folder, settings.full)
    outcome, not_run = _outcome(case, work)
    result = {
        **{"case": case.name, "mode": settings.mode, "times": work.times, "outcome": outcome},
        **{"lost": work.lost, "not_run": not_run, "seconds": round(time.monotonic() - begun, 1)},
        "versions": versions(),
    }
    write_text(settings.file(case), json.dumps(result, indent=1) + "\n")
    if not work.lost:
        shutil.rmtree(folder)
    print(f"{case.name}: {stated(result)}", flush=True)
    return result


def _outcome(case: Case, work: Work) -> tuple[str, str]:
    """Return the outcome, and the reason why the case was not run; an error counts as lost."""
    try:
        return case.run(work), ""
    except NotRunError as error:
        return "", str(error)
    except Exception as error:
        traceback.print_exc()
        work.lost.append(f"the case itself failed: {type(error).__name__}: {error}")
        return "", ""


def stated(result: Result) -> str:
    """Return a result as a line of the console, and what was lost below it."""
    if result["not_run"]:
        return f"not run: {result['not_run']}"
    lost = "".join(f"\n  lost: {text}" for text in result["lost"])
    return f"{result['outcome']}; lost {len(result['lost'])} ({result['seconds']:.0f} s){lost}"


def read_result(case: Case, settings: Settings) -> Result | None:
    file = settings.file(case)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def finished(cases: Sequence[Case], settings: Settings) -> list[tuple[Case, Result]]:
    """Return the cases that have results."""
    found = [(case, read_result(case, settings)) for case in cases]
    return [(case, result) for case, result in found if result is not None]
