"""Install Detectron2, which has no release on PyPI under its own name; needs torch and torchvision.

It takes the first of these that works: an installed Detectron2; the official repository at a pinned
commit (compiles C++); where that cannot be reached, or nothing can compile, the one sdist of
Detectron2 0.6 on PyPI, brought up to date and installed as a pure-Python wheel.  An archive is used
only if its hash is right, and is kept in a folder of pip's cache, so that the next installation
works offline.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli import archives, detectron2_sdist, pip
from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.repository import repository_file

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
COMMIT_TREE = "d523cdc74ffc15c2412544553f8caaf4803d89b9"  # git's own hash of that commit's files
ARCHIVE_URL = f"https://github.com/facebookresearch/detectron2/archive/{COMMIT}.tar.gz"


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    try:
        print("Detectron2:", install(args.source, args.archive, args.constraints))
    except (pip.InstallError, OSError) as error:
        sys.exit(f"Detectron2 was not installed. {error}")


def install(source: str, archive: str, constraints: Path | None = None) -> str:
    """Install Detectron2 if there is none; return what happened and why, in one line.

    Args:
        source: "official", "sdist", or "auto": the first that works.
        archive: Address or path of the official archive.
        constraints: Constraints file of pip; default: the repository's.
    """
    version = installed_version()
    if version:
        return f"already installed ({version})"
    constraints = constraints or repository_file("constraints.txt")
    require("torch", "torchvision", "setuptools", constraints=constraints)
    why = "as requested by --source"
    if source == "auto" and not can_compile():
        source, why = "sdist", "as there is no C++ compiler (or no Python.h) for the official one"
    with archives.download_folder() as folder:
        if source != "sdist":
            try:
                what = install_official(archive, folder, constraints)
                return f"{what} ({installed_version()}), as it could be reached"
            except archives.UnreachableError as error:
                if source == "official":
                    raise
                print(f"No official archive: {error}", flush=True)
                why = "as the official archive could not be reached"
        return f"{install_sdist(folder, constraints)} ({installed_version()}), {why}"


def installed_version() -> str | None:
    """Return the version of the Detectron2 that this Python imports; None if there is none."""
    code = "import detectron2.layers; print(detectron2.__version__)"
    with tempfile.TemporaryDirectory() as empty:  # the current folder may have a clone in it
        done = pip.run("-c", code, cwd=empty)
    if done.returncode == 0:
        return done.stdout.split()[-1]
    error = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    if error.endswith("No module named 'detectron2'"):
        return None
    raise pip.InstallError(
        f"Detectron2 is installed but cannot be imported: {error}\n"
        "Fix that error, or run `pip uninstall detectron2` and then this command again."
    )


def can_compile() -> bool:
    """Return whether there are a C++ compiler and Python's headers, for the official build."""
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return headers.exists() and any(shutil.which(compiler) for compiler in compilers)


def require(*modules: str, constraints: Path) -> None:
    """Raise if a module that Detectron2's setup.py imports is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            command = f"{sys.executable} -m pip install -c {constraints} {' '.join(modules)}"
            raise pip.InstallError(
                f"Detectron2 needs {module} before it can be installed: {command}"
            )


def install_official(archive: str, folder: Path, constraints: Path) -> str:
    if "://" in archive:
        file = archives.cached(
            folder / f"detectron2-{COMMIT}.tar.gz",
            lambda new: archives.download(archive, new),
            archives.git_tree,
            COMMIT_TREE,
        )
    else:
        given = Path(archive)
        file = archives.verify(given.resolve(), archives.git_tree(given), COMMIT_TREE)
    remedy = "Without a C++ compiler, use `--source sdist`, which compiles nothing."
    pip_install(file, constraints, remedy)
    return f"official archive at commit {COMMIT[:8]}"


def install_sdist(folder: Path, constraints: Path) -> str:
    name = detectron2_sdist.SDIST
    sdist = archives.cached(
        folder / f"{name}.tar.gz",
        detectron2_sdist.download_sdist,
        archives.sha256,
        detectron2_sdist.SDIST_SHA256,
    )
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(sdist) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.12 warns
            tar.extractall(temporary)
        detectron2_sdist.modernize(Path(temporary, name))
        remedy = f"Compare your setuptools with {constraints}."
        pip_install(Path(temporary, name), constraints, remedy)
    return "PyPI sdist pb1-detectron2 0.6, modernized"


def pip_install(source: Path, constraints: Path, remedy: str) -> None:
    """Build a wheel from the source and install it with its dependencies."""
    print(f"Building a wheel from {source.name}", flush=True)
    pip.run_pip("install", "--no-build-isolation", "-c", constraints, source, remedy=remedy)


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("--source", choices=("auto", "official", "sdist"), default="auto")
    found.add_argument(
        "--archive", default=ARCHIVE_URL, metavar="URL_OR_PATH", help="the official archive"
    )
    found.add_argument(
        "--constraints", type=Path, metavar="FILE", help="default: those of this package"
    )
    return found
