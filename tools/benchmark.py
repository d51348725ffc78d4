#!/usr/bin/env python
"""Time our SwinV2 against other implementations and against the floor of the machine.

tools/benchmark.py                                   all that are installed, five sizes, forward
tools/benchmark.py --sizes 768x1280 --window 8 16 --mode both --compile --checkpointing --table
tools/benchmark.py --candidates ours timm microsoft=models/swin_transformer_v2.py
tools/benchmark.py --int8 --sizes 256x256 512x512
tools/benchmark.py --linear-cost --threads-scaling --detector --sizes 800x1333
tools/benchmark.py --device cuda --dtype bfloat16 --attention --sizes 1024x1024 --batch 2
tools/benchmark.py --startup /tmp/startup --images 118000 --rounds 3
tools/benchmark.py --predict output --predict-images photos --images 200 --rounds 5
tools/benchmark.py --trainer configs/mask_rcnn_swinv2_demo.yaml --rounds 20
tools/benchmark.py --suite --json speed.json --markdown speed.md --picture speed.png

All candidates have the same random weights and images and take turns in one process, A B C A B C
...; ratios are of each round.  Before that, features are compared with our readable reference: a
candidate that differs is reported but not timed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where benchmarking is

from benchmarking import attention, detector, jobs, memory, quantized, scaling, startup  # noqa: E402
from benchmarking.candidates import Candidate, installed, names, parse, with_variations  # noqa: E402
from benchmarking.comparison import Plan, progress  # noqa: E402
from benchmarking.report import failures, lines, tables  # noqa: E402
from benchmarking.results import Content, Results  # noqa: E402
from benchmarking.settings import DTYPES, MODES, Setting, parse_size  # noqa: E402
from benchmarking.suite import estimated_seconds, suite  # noqa: E402

from swinv2_backbone import VARIANTS  # noqa: E402
from swinv2_backbone.checkpoints.durable import write_text  # noqa: E402
from swinv2_backbone.cli.arguments import new_parser  # noqa: E402
from swinv2_backbone.cli.errors import errors_as_messages  # noqa: E402
from swinv2_backbone.kernels.choose import VARIABLE  # noqa: E402
from swinv2_backbone.variants import variant_name  # noqa: E402

SIZES = ("512x512", "768x1280", "800x1333", "1024x1024", "1536x1536")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.memory_of:
        print(memory.report(args.memory_of))
        return
    with errors_as_messages():
        check(args)
        if args.startup:
            print(startup.compare(args.startup, args.images, args.rounds))
            return
        if args.predict:
            print(predicted(args))
            return
        if args.trainer:
            from benchmarking import trainers  # it needs Detectron2

            config, *options = args.trainer
            print(trainers.compare(config, options, args.rounds, args.time_limit, args.device))
            return
        plan = Plan(args.rounds, args.warmup, args.time_limit, memory_script(args))
        todo = planned(args, plan)
        found = run(todo, Results(args.json), args, plan)
        write(found, args)
    wrong = list(failures(found))
    if wrong:
        sys.exit("\n".join(wrong))


def predicted(args: argparse.Namespace) -> str:
    from benchmarking import predicting, processes  # they need Detectron2

    if args.processes > 1:
        return processes.compare(
            args.predict,
            args.weights,
            args.predict_images,
            args.images,
            args.processes,
            args.threads,
            args.rounds,
        )
    return predicting.compare(
        args.predict,
        args.weights,
        args.predict_images,
        args.images,
        args.batch,
        args.rounds,
        args.device,
    )


def memory_script(args: argparse.Namespace) -> Path | None:
    return None if args.no_memory else Path(__file__).resolve()


def planned(args: argparse.Namespace, plan: Plan) -> list[jobs.Job]:
    """Return the jobs that the arguments ask for; everything is checked before any work."""
    candidates = [parse(text) for text in args.candidates or []] or installed()
    if args.suite:
        base = Setting(args.model, 8, (64, 64), device=args.device, threads=args.threads)
        return suite(base, candidates, plan)
    chosen = with_variations(candidates, compiled=args.compile, checkpointing=args.checkpointing)
    settings = list(settings_of(args))
    special = [*scaling_jobs(args, settings, plan)]
    if args.detector:
        special += [jobs.detector(setting, plan) for setting in settings]
    if args.attention:
        special += [attention_job(setting) for setting in settings]
    if args.int8:
        special += [int8_job(setting, plan) for setting in settings]
    return special or [jobs.comparison(setting, chosen, plan) for setting in settings]


def settings_of(args: argparse.Namespace) -> list[Setting]:
    modes = MODES if args.mode == "both" else (args.mode,)
    windows = args.window or [VARIANTS[args.model].window_sizes[0]]
    sizes = [parse_size(size) for size in args.sizes]
    return [
        Setting(args.model, window, size, args.batch, args.dtype, mode, args.device, args.threads)
        for mode, window, size in product(modes, windows, sizes)
    ]


def int8_job(setting: Setting, plan: Plan) -> jobs.Job:
    if quantized.unfit(setting):
        raise ValueError(f"--int8 at {setting}: {quantized.unfit(setting)}")
    return jobs.int8(setting, plan)


def attention_job(setting: Setting) -> jobs.Job:
    if attention.unfit(setting):
        raise ValueError(f"--attention at {setting}: {attention.unfit(setting)}")
    return jobs.attention(setting)


def scaling_jobs(args: argparse.Namespace, settings: list[Setting], plan: Plan) -> list[jobs.Job]:
    """Return the jobs of the named candidates, else of ours, for every window and mode."""
    candidates = [parse(text) for text in args.candidates or [Candidate("ours").name]]
    sizes = {(s.mode, s.window): s for s in reversed(settings)}  # only threads depend on size
    found = []
    for candidate, at in product(candidates, reversed(sizes.values())):
        if args.linear_cost:
            of = scaling.linear_cost(at)
            found.append(jobs.scaling(of, candidate, plan, "Cost of a pixel by size"))
            found.append(jobs.scaling(scaling.padding_cost(at), candidate, plan, "Padding"))
    for candidate, at in product(candidates, settings):
        if args.threads_scaling:
            of = scaling.threads_scaling(at)
            found.append(jobs.scaling(of, candidate, plan, "Threads"))
    return found


def run(
    todo: list[jobs.Job], results: Results, args: argparse.Namespace, plan: Plan
) -> list[Content]:
    """Return results in the order of the jobs; each is printed as soon as it is measured."""
    hours = sum(estimated_seconds(job, plan) for job in todo) / 3600
    progress(f"{len(todo)} jobs, about {hours:.1f} hours without existing results")
    found = []
    for result in jobs.measure(todo, results, again=args.again or not args.suite):
        found.append(result)
        if not args.table:
            print("\n".join(lines(result)), flush=True)
    return found


def write(found: list[Content], args: argparse.Namespace) -> None:
    if args.table:
        print(tables(found))
    if args.markdown:
        write_text(args.markdown, tables(found))
    if args.picture:
        from benchmarking.picture import draw  # matplotlib is needed for pictures alone

        draw(found, args.picture)


def check(args: argparse.Namespace) -> None:
    """Complete the arguments; raise ValueError for those that cannot work, before any work."""
    args.model = variant_name(args.model)
    args.threads = args.threads or torch.get_num_threads()
    for name in ("batch", "rounds", "threads", "images", "processes"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if any(window < 1 for window in args.window or ()):
        raise ValueError(f"--window must be at least 1, got {args.window}")
    if args.predict and not args.predict_images:
        raise ValueError("--predict needs --predict-images FOLDER")
    if VARIABLE in os.environ:
        raise ValueError(f"unset {VARIABLE}, which overrides the kernels that are compared here")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU here")
    if (args.detector or args.suite) and detector.unavailable():
        raise ValueError(detector.unavailable())
    if args.picture and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--picture needs matplotlib, which is not installed")
    for file in (args.json, args.markdown, args.picture):
        if file is not None and not file.absolute().parent.is_dir():
            raise ValueError(f"there is no folder {file.absolute().parent}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--memory-of", help=argparse.SUPPRESS)  # the request to a separate process
    what = parser.add_argument_group("what")
    what.add_argument(
        "--suite", action="store_true", help="all of docs/SPEED.md, at its own settings"
    )
    what.add_argument(
        "--linear-cost", action="store_true", help="cost of a pixel by size, and padded"
    )
    what.add_argument("--threads-scaling", action="store_true", help="1 thread against 2")
    what.add_argument("--detector", action="store_true", help="Mask R-CNN against R50, Swin V1")
    what.add_argument(
        "--attention", action="store_true", help="attention alone, on a GPU: roofline"
    )
    what.add_argument("--int8", action="store_true", help="float32 against int8 linear layers")
    what.add_argument(
        "--startup",
        type=Path,
        metavar="FOLDER",
        help="check and load a COCO-format set, generated in FOLDER, against Detectron2",
    )
    what.add_argument(
        "--predict",
        metavar="SOURCE",
        help="images a second of predict, with files and drawings, against its model alone; SOURCE "
        "is an output folder, a config or a recipe",
    )
    what.add_argument(
        "--trainer",
        nargs="+",
        metavar=("FILE.yaml", "KEY VALUE"),
        help="iterations a second of our trainer against Detectron2's; with R50 and Swin V1 too",
    )
    what.add_argument("--weights", metavar="FILE", help="of --predict")
    what.add_argument("--predict-images", metavar="FOLDER", help="of --predict")
    what.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="of --predict: --shards with 1 and with N processes instead",
    )
    what.add_argument(
        "--images", type=int, default=12000, metavar="N", help="of --startup and --predict"
    )
    add_setting(parser.add_argument_group("setting"))
    add_thoroughness(parser.add_argument_group("how"))
    add_output(parser.add_argument_group("output"))
    return parser.parse_args(argv)


def add_setting(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", default="swinv2_tiny_window8_256", metavar="NAME")
    add("--window", type=int, nargs="+", metavar="M", help="default: the model's")
    add("--sizes", nargs="+", default=list(SIZES), metavar="HxW", help="in pixels")
    add("--batch", type=int, default=1, metavar="B")
    add(
        "--dtype",
        default="float32",
        choices=DTYPES,
        help="of model and images in forward, of autocast in training",
    )
    add(
        "--mode", default="forward", choices=(*MODES, "both"), help="training: forward and backward"
    )
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--threads", type=int, metavar="N", help="default: PyTorch's")
    add(
        "--candidates",
        nargs="+",
        metavar="NAME",
        help=f"default: all installed; {', '.join(names())}",
    )
    add("--compile", action="store_true", help="all candidates under torch.compile too")
    add("--checkpointing", action="store_true", help="with activation checkpointing too")


def add_thoroughness(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--rounds", type=int, default=9, metavar="N", help="turns of every candidate")
    add("--warmup", type=int, default=1, metavar="N", help="turns before, not counted")
    add(
        "--time-limit",
        type=float,
        default=120,
        metavar="S",
        help="no further round after S seconds, from the third on (120)",
    )
    add("--no-memory", action="store_true", help="do not measure peak memory")


def add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--json", type=Path, metavar="FILE", help="results, written after every job")
    add("--again", action="store_true", help="let --suite measure existing results again")
    add("--table", action="store_true", help="print markdown")
    add("--markdown", type=Path, metavar="FILE", help="the tables in a file")
    add("--picture", type=Path, metavar="FILE.png", help="bars of ratios to the fastest peer")


if __name__ == "__main__":
    main()
