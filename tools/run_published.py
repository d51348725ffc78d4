#!/usr/bin/env python
"""Train or evaluate what has published numbers and write docs/PUBLISHED.md's tables.

tools/run_published.py --suite coco --data datasets --list        the rows and their commands
tools/run_published.py --suite coco --data datasets --estimate    hours of the backbone on 8 GPUs
tools/run_published.py --suite coco --data datasets               all rows, one after the other
tools/run_published.py --suite coco --data datasets --rows retinanet_swinv2_tiny --num-gpus 4
tools/run_published.py --suite coco --report                      the tables of what is done

When run again, it continues.  KEY VALUE changes every training, for a trial, and keeps its results
out of the tables.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from published.data import full_sizes
from published.report import table
from published.rows import SUITES, Row, choose
from published.running import Settings, command, finished, folder_of, prepare_data, run
from results.marks import as_json, fill_in, read_numbers

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.cli.arguments import add_config_changes, new_parser
from swinv2_backbone.cli.errors import errors_as_messages

DOCS = Path(__file__).resolve().parents[1] / "docs"
GPUS = {"coco": 8, "ade20k": 8, "imagenet": 1}


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--suite", choices=SUITES, required=True)
    parser.add_argument("--data", type=Path, default=Path("datasets"), help="folder of the sets")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="default: all of the suite")
    parser.add_argument("--num-gpus", type=int, metavar="N", help="default: 8; 1 for imagenet")
    parser.add_argument("--output", type=Path, default=Path("output", "published"))
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--list", action="store_true", help="print the rows and their commands")
    task.add_argument("--estimate", action="store_true", help="print the hours and the arithmetic")
    task.add_argument("--report", action="store_true", help="run nothing")
    add_config_changes(parser)
    args = parser.parse_args(argv)
    with errors_as_messages():
        rows = choose(args.suite, args.rows)
        gpus = GPUS[args.suite] if args.num_gpus is None else args.num_gpus
        settings = Settings(args.suite, args.data, args.output, gpus, tuple(args.opts))
        settings.check()
        if args.list:
            print_rows(rows, settings)
        elif args.estimate:
            from published.estimate import estimate

            print(estimate(rows, gpus, settings.changes))
        elif args.report:
            report(rows, settings)
        else:
            settings.check_gpus()
            images = prepare_data(settings)
            for row in rows:
                run(row, settings, images)
                report(rows, settings)


def print_rows(rows: tuple[Row, ...], settings: Settings) -> None:
    for row in rows:
        numbers = ", ".join(f"{title} {value}" for title, value in row.published.items())
        print(f"{row.name}: {numbers} ({row.of})")
        if settings.trains:
            words = command(row, settings, folder_of(row, settings, full_sizes(settings.suite)))
            print(f"  DETECTRON2_DATASETS={shlex.quote(str(settings.data))} {shlex.join(words)}")


def report(rows: tuple[Row, ...], settings: Settings) -> None:
    """Write the entries of what is done, and the suite's table."""
    file, page, suite = DOCS / "published.json", DOCS / "PUBLISHED.md", settings.suite
    numbers = read_numbers(file)
    numbers[suite] = numbers.get(suite, {}) | finished(rows, settings.output)
    write_text(file, as_json(numbers))
    write_text(page, fill_in(page, {suite: table(suite, numbers[suite])}))
    print(f"Written to {file} and {page}", flush=True)


if __name__ == "__main__":
    main()
