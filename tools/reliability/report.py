"""The table of docs/RELIABILITY.md."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarking.machine import cores, cpu_name

from reliability.cases import Case
from reliability.running import Result

MARK = "cases"
HEADER = ("case", "failure", "times", "outcome", "lost", "seconds")


def table(results: Sequence[tuple[Case, Result]]) -> str:
    """Return the table of what is done, and a line with the machine and the versions."""
    rows = [HEADER, ("---",) * len(HEADER), *(_row(case, result) for case, result in results)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", _machine([result for _, result in results])])


def _row(case: Case, result: Result) -> tuple[str, ...]:
    if result["not_run"]:
        return (f"`{case.name}`", case.failure, "0", f"not run: {result['not_run']}", "-", "-")
    mode = " (short form)" if result["mode"] == "short" else ""
    return (
        *(f"`{case.name}`", case.failure, f"{result['times']:,}", f"{result['outcome']}{mode}"),
        *(str(len(result["lost"])), f"{result['seconds']:,.0f}"),
    )


def _machine(results: Sequence[Result]) -> str:
    found = {(one["versions"]["python"], one["versions"]["torch"]) for one in results}
    used = " and ".join(f"Python {python}, PyTorch {torch}" for python, torch in sorted(found))
    lost = sum(len(one["lost"]) for one in results)
    times = sum(one["times"] for one in results)
    return f"In all {times:,} times, {lost} lost. {cores()} cores of {cpu_name()}; {used}."
