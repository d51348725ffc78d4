"""Two trainings in one output folder."""

from __future__ import annotations

from collections import Counter

from reliability.judging import has_traceback
from reliability.processes import Command
from reliability.work import Work, stated
from swinv2_backbone.d2.engine import lock

PATIENCE = 0.5  # seconds, in place of 30, in which the owner of a folder may end
LENGTH = 24  # iterations, so that the first one still runs when the second one gives up
REFUSED = "is in use by process"


def impatient() -> None:
    lock.PATIENCE = PATIENCE


def two_trainings(work: Work) -> str:
    """Start a second training in a folder: one goes on, the other is refused in a sentence."""
    winners = Counter[str]()
    for number in range(11):
        name, other = f"pair{number}", f"pair{number}_second"
        first = work.train(name, prepare=impatient, iterations=LENGTH)
        first.wait_until(0 if number < 3 else work.chance.uniform(0, 1.5))
        words = work.scene.command(work.folder / name, iterations=LENGTH)
        second = Command(words, work.folder / f"{other}.txt", impatient)
        if number % 4 == 3:
            _evaluate_beside(work, name)
        codes = [first.wait(), second.wait()]
        work.times += 1
        if not work.expect(sorted(codes) == [0, 1], f"{name}: both end with {codes}"):
            continue
        winner, refused = (first, second) if codes == [0, 1] else (second, first)
        winners["first" if winner is first else "second"] += 1
        sentence = REFUSED in refused.last and not has_traceback(refused.text)
        work.expect(sentence, f"{name}: the other says {refused.last!r}")
        work.ends_equal(winner, name, iterations=LENGTH)
    rest = {f"won by the {name}": count for name, count in sorted(winners.items())}
    return stated(work.times, f"pairs (owner waited for {PATIENCE} s, not 30)", rest)


def _evaluate_beside(work: Work, name: str) -> None:
    """Evaluate into the folder of a running training."""
    weights = work.reference(iterations=LENGTH) / "model_final.pth"
    words = work.scene.command(work.folder / name, "yaml", "--eval-only", weights=weights)
    command = Command(words, work.folder / f"{name}_evaluation.txt")
    work.expect(command.wait() == 0, f"{name}: no evaluation beside it: {command.last}")
