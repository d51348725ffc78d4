#!/usr/bin/env python
"""Run exported models in other runtimes, and update the table of docs/EXPORT.md.

tools/runtimes/run.py WORK_FOLDER [RUNTIME ...]

installs the runtimes at pinned versions in two virtual environments in WORK_FOLDER, on top of the
environment that runs this (of constraints.txt).  It exports SwinV2-T models with random weights for
one shape each, and compares every file with its model in every runtime.  The results go to
tools/runtimes/results.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from runtimes.measure import RUNTIMES  # noqa: E402
from runtimes.models import MODELS  # noqa: E402
from runtimes.table import RESULTS, write_table  # noqa: E402
from swinv2_backbone.checkpoints.durable import write_text  # noqa: E402

# Packages that are installed without their requirements; the rest is that of constraints.txt.
ENVIRONMENTS = {
    "runtimes": (
        "attrs==26.1.0",
        "cattrs==26.2.1",
        "coremltools==9.0",
        "ncnn==1.0.20261020",
        "pnnx==20261020",
        "pyaml==26.7.0",
        "tract==0.23.9",
    ),
    "litert": (
        "ai-edge-litert==2.3.0",
        "ai-edge-quantizer==0.10.0",
        "backports-strenum==1.2.8",
        "fire==0.7.1",
        "immutabledict==4.3.1",
        "jax==0.10.2",
        "jaxlib==0.10.2",
        "jaxtyping==0.3.11",
        "kagglehub==1.0.3",
        "lark==1.3.1",
        "litert-converter==0.5.0",
        "litert-lm-builder==0.18.1",
        "litert-torch==0.10.0",
        "multipledispatch==1.0.0",
        "opt-einsum==3.4.0",
        "sentencepiece==0.2.3",
        "torchao==0.18.0",
        "wadler-lindig==0.1.8",
        "xdsl==0.28.0",
    ),
}


def environment_of(runtime: str) -> str:
    return "litert" if runtime == "LiteRT" else "runtimes"


def main() -> None:
    args = parser().parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for kind, packages in ENVIRONMENTS.items():
        wanted = [one for one in args.runtimes or RUNTIMES if environment_of(one) == kind]
        if not wanted:
            continue
        python = environment(folder / f"{kind}-venv", packages)
        for model in MODELS:
            found = measured(python, model, wanted, folder / "measured.json")
            results[model] = results.get(model, {}) | found
            save(results)  # after each model: a run takes half an hour, and may be stopped


def save(results: dict[str, dict]) -> None:
    """Write the results and their table, in the order of the models and runtimes."""
    ordered = {
        model: {name: results[model][name] for name in RUNTIMES if name in results[model]}
        for model in MODELS
        if model in results
    }
    write_text(RESULTS, json.dumps(ordered, indent=1) + "\n")
    write_table(ordered)


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the Python of an environment, which is made if it lacks the wanted packages."""
    python, installed = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(packages)
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=True, clear=True)
        ours = {"base": str(folder), "platbase": str(folder)}
        shared = Path(sysconfig.get_path("purelib", vars=ours)) / "shared.pth"
        shared.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *packages]
        subprocess.run(command, check=True)
        installed.write_text(wanted, encoding="utf-8")
    return python


def measured(python: Path, model: str, runtimes: list[str], output: Path) -> dict[str, dict]:
    """Return the results of a model in some runtimes."""
    script = Path(__file__).with_name("measure.py")
    subprocess.run([str(python), str(script), model, str(output), *runtimes], check=True)
    found: dict[str, dict] = json.loads(output.read_text(encoding="utf-8"))
    return found


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("folder", type=Path, metavar="WORK_FOLDER")
    found.add_argument(
        "runtimes", nargs="*", metavar="RUNTIME", help=f"of {', '.join(RUNTIMES)}; default: all"
    )
    return found


if __name__ == "__main__":
    main()
