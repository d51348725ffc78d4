#!/usr/bin/env python
"""Repeat the paper's claims on a small scale, on generated data; see docs/EXPERIMENTS.md.

tools/run_experiments.py           an hour on a CPU with two cores
tools/run_experiments.py --quick   some minutes: a test that everything runs

When run again, it continues.  Results, tables and pictures are written to --output.
"""

from __future__ import annotations

from pathlib import Path

from experiments.jobs import add_processes, run
from experiments.plan import FULL, QUICK, jobs
from experiments.plots import draw
from experiments.report import report

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.cli.arguments import new_parser


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument(
        "--output", type=Path, help="default: output/experiments, or output/experiments_quick"
    )
    add_processes(parser)
    args = parser.parse_args(argv)
    folder = args.output or Path("output", "experiments_quick" if args.quick else "experiments")
    scale = QUICK if args.quick else FULL
    results = run(jobs(scale), folder, args.processes)
    text = report(results, scale)
    write_text(folder / "results.md", text)
    draw(results, scale, folder)
    print(f"\n{text}\nWritten to {folder / 'results.md'}, with pictures")


if __name__ == "__main__":
    main()
