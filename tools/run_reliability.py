#!/usr/bin/env python
"""Kill, starve and damage small trainings, and write docs/RELIABILITY.md's table.

tools/run_reliability.py               a short form of all cases, within 40 minutes on two cores
tools/run_reliability.py --full        the long form: hundreds of kills, a long soak
tools/run_reliability.py --list        the cases
tools/run_reliability.py --cases disk-full two-trainings
tools/run_reliability.py --report      the table of what is done, without running

Each case is the real command with real files.  When run again, what is done is not repeated.  The
exit code is 1 if anything was lost; the folder of the case then has the evidence.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from reliability.cases import BY_NAME, choose
from reliability.report import MARK, table
from reliability.running import Settings, finished, run
from results.marks import fill_in

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages

PAGE = Path(__file__).resolve().parents[1] / "docs" / "RELIABILITY.md"


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="default: all")
    parser.add_argument("--full", action="store_true", help="the long form")
    parser.add_argument("--anew", action="store_true", help="also run again what is done")
    parser.add_argument("--output", type=Path, default=Path("output", "reliability"))
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--list", action="store_true", help="print the cases and stop")
    task.add_argument("--report", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    with errors_as_messages():
        cases = choose(args.cases)
        if args.list:
            print("\n".join(f"{case.name}: {case.failure}" for case in cases))
            return
        settings = Settings(args.output, args.full, args.anew)
        if not args.report:
            torch.set_num_threads(1)  # threads do not survive a fork
            for case in cases:
                run(case, settings)
        results = finished(tuple(BY_NAME.values()), settings)
        write_text(PAGE, fill_in(PAGE, {MARK: table(results)}))
        print(f"Written to {PAGE}", flush=True)
    chosen = {case.name for case in cases}
    if any(result["lost"] for case, result in results if case.name in chosen):
        sys.exit(1)


if __name__ == "__main__":
    main()
