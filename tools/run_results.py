#!/usr/bin/env python
"""Train small detectors on public photographs and write docs/RESULTS.md's tables.

tools/run_results.py --data data                  all sets; some hours on two cores
tools/run_results.py --data data --sets nuclei    one set
tools/run_results.py --data data --report         the tables of what is done, without running
tools/run_results.py --list                       the sets, and how to get them

Nothing is downloaded: --data has a clone of every set's repository.  When run again, it continues.
"""

from __future__ import annotations

from pathlib import Path

from experiments.jobs import add_processes, finished, run
from results.marks import as_json, fill_in, read_numbers
from results.pictures import combine, combine_errors
from results.plan import PARTS, SEEDS, jobs
from results.report import compact, merged, tables
from results.sets import BY_NAME, SETS

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages

DOCS = Path(__file__).resolve().parents[1] / "docs"
NUMBERS = DOCS / "results.json"  # of all sets that have ever been run


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the clones")
    parser.add_argument(
        "--sets", nargs="+", choices=BY_NAME, default=list(BY_NAME), help="default: all"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="models of full size at 512 pixels in bfloat16, which needs a GPU; choose another "
        "--output; the tables are printed and not written to docs/",
    )
    parser.add_argument("--list", action="store_true", help="print the sets and stop")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--output", type=Path, default=Path("output", "results"))
    add_processes(parser)
    args = parser.parse_args(argv)
    if args.list:
        for one in SETS:
            print(f"{one.name}: {one.title}; {one.licence}")
            print(f"  git clone --depth 1 {one.url} {one.folder(args.data)}")
        return
    with errors_as_messages():
        todo = jobs(args.sets, str(args.data.absolute()), parts=args.parts, full=args.full)
        if args.report:
            found = finished(todo, args.output)
        else:
            for name in args.sets:
                BY_NAME[name].clone(args.data)
            found = run(todo, args.output, args.processes)
        if args.full:
            for text in tables(compact(found, args.sets, SEEDS)).values():
                print(f"\n{text}")
            return
        numbers = merged(read_numbers(NUMBERS), compact(found, args.sets, SEEDS))
        write_text(NUMBERS, as_json(numbers))
        combine(args.output, DOCS / "photographs.jpg")
        combine_errors(args.output, DOCS / "errors.jpg")
        write_text(DOCS / "RESULTS.md", fill_in(DOCS / "RESULTS.md", tables(numbers)))
    print(f"Written to {DOCS / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
