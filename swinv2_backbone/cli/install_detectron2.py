"""Install Detectron2, which has no release on PyPI under its own name; needs torch and torchvision.

In this order: what is there already; the official repository at a pinned commit (compiles C++);
where that cannot be reached, or nothing can compile, the one sdist of Detectron2 0.6 on PyPI,
brought up to date by the table REPLACEMENTS and installed as a pure-Python wheel. An archive is
used only if its hash is right, and is kept in a folder of pip's cache, so that the next
installation works offline.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
COMMIT_TREE = "d523cdc74ffc15c2412544553f8caaf4803d89b9"  # git's own hash of that commit's files
ARCHIVE_URL = f"https://github.com/facebookresearch/detectron2/archive/{COMMIT}.tar.gz"
TIMEOUT_S = 20

SDIST = "pb1-detectron2-0.6"  # its package files are byte-identical to the official tag v0.6
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
OLDER_PIP = "pip==25.3"
VERSION = "0.6+swinv2.purepython"  # the local label tells it from an official 0.6

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"


class Replacement(NamedTuple):
    file: str
    old: str
    new: str
    count: int  # how many times `old` must occur
    reason: str


PANOPTICAPI = "https://github.com/cocodataset/panopticapi/archive/master.zip"
NUMPY = "alias of a Python type, removed in numpy 1.24"
PILLOW = "old name, removed in Pillow 10"
SETUPTOOLS = "pkg_resources is not in setuptools >= 81"
COMPILED = "no compiled part, as the sdist lacks the C++ sources"
CAFFE2 = "needed for its export to caffe2 alone, and caffe2 is gone"
MAIN = "as on the main branch"
URL = "an extra that is a URL, which pip does not allow from PyPI"
REPLACEMENTS = [
    Replacement("detectron2/data/build.py", "dtype=np.int", "dtype=int", 2, NUMPY),
    Replacement("detectron2/data/datasets/pascal_voc.py", "np.str)", "str)", 1, NUMPY),
    Replacement("detectron2/evaluation/pascal_voc_evaluation.py", "np.bool)", "bool)", 2, NUMPY),
    Replacement("detectron2/evaluation/sem_seg_evaluation.py", "np.int)", "int)", 2, NUMPY),
    Replacement("detectron2/evaluation/sem_seg_evaluation.py", "np.float)", "float)", 5, NUMPY),
    Replacement("detectron2/structures/masks.py", "np.bool)", "bool)", 3, NUMPY),
    Replacement("detectron2/utils/video_visualizer.py", "np.bool)", "bool)", 1, NUMPY),
    Replacement("detectron2/utils/visualizer.py", "np.bool)", "bool)", 3, NUMPY),
    Replacement("detectron2/data/transforms/transform.py", ".LINEAR", ".BILINEAR", 1, PILLOW),
    Replacement("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", "", 1, SETUPTOOLS),
    Replacement(
        "detectron2/model_zoo/model_zoo.py",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo"',
        "os.path.join(\n        os.path.dirname(__file__)",
        1,
        SETUPTOOLS,
    ),
    Replacement(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt",
        "from pycocotools.cocoeval import COCOeval as COCOeval_opt",
        1,
        COMPILED,
    ),
    Replacement("setup.py", "    ext_modules=get_extensions(),\n", "", 1, COMPILED),
    Replacement("setup.py", '"future",', "", 1, CAFFE2),
    Replacement("setup.py", '"pydot",', "", 1, CAFFE2),
    Replacement("setup.py", '"black==21.4b2"', '"black"', 1, MAIN),
    Replacement("setup.py", '"omegaconf>=2.1"', '"omegaconf>=2.1,<2.4"', 1, MAIN),
    Replacement("setup.py", '"pb1-detectron2"', '"detectron2"', 1, MAIN),
    Replacement("setup.py", f'"panopticapi @ {PANOPTICAPI}",', "", 1, URL),
    Replacement("detectron2/__init__.py", '"0.6"', f'"{VERSION}"', 1, "not an official 0.6"),
]
STAND_IN = '''"""Stand-in for Detectron2's compiled part, which this pure-Python build lacks."""

has_cuda = lambda: False
get_compiler_version = get_cuda_version = lambda: "none (pure-Python build)"


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(
        f"detectron2._C.{name} is compiled code, which this pure-Python build of Detectron2 lacks "
        "(deformable convolutions, rotated boxes, fast COCO evaluation). Install the official one: "
        "https://github.com/facebookresearch/detectron2"
    )
'''


class InstallError(RuntimeError):
    """Detectron2 cannot be installed; the message says why and what to do."""


class UnreachableError(InstallError):
    """The official archive cannot be fetched from here."""


def run(
    *command: str | Path, cwd: Path | None = None, python_path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments; it finds what is in ``python_path`` first."""
    env = os.environ | {"PYTHONPATH": str(python_path)} if python_path else None
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=cwd, env=env
    )


def run_pip(*command: str | Path, remedy: str, python_path: Path | None = None) -> None:
    """Run pip for this Python; if it fails, raise with the end of its log and the remedy."""
    done = run("-m", "pip", *command, python_path=python_path)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise InstallError(f"{tail}\n`pip {command[0]}` failed, see above. {remedy}")


def installed_version() -> str | None:
    """Version of the Detectron2 that this Python imports; None if there is none."""
    code = "import detectron2.layers; print(detectron2.__version__)"
    done = run("-c", code, cwd=Path(__file__).parent)  # away from a clone in the current folder
    if done.returncode == 0:
        return done.stdout.split()[-1]
    error = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    if error.endswith("No module named 'detectron2'"):
        return None
    raise InstallError(
        f"Detectron2 is installed but cannot be imported: {error}\n"
        "Repair what that names, or `pip uninstall detectron2` and run this again."
    )


def can_compile() -> bool:
    """Whether there are a C++ compiler and Python's headers, which the official build needs."""
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return headers.exists() and any(shutil.which(compiler) for compiler in compilers)


def require(*modules: str) -> None:
    """Raise if something that Detectron2's setup.py imports is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            command = f"{sys.executable} -m pip install -c {CONSTRAINTS} {' '.join(modules)}"
            raise InstallError(f"Detectron2 needs {module} before it can be installed: {command}")


@contextlib.contextmanager
def download_folder() -> Iterator[Path]:
    """A folder in pip's cache, or a temporary one if pip's cache is off."""
    done = run("-m", "pip", "cache", "dir")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if done.returncode == 0:
            folder = Path(done.stdout.strip(), "swinv2_backbone")
            folder.mkdir(parents=True, exist_ok=True)
        yield folder


def cached(file: Path, fetch: Callable[[Path], None], digest: Callable[[Path], str], expected: str):
    """The file, fetched if it is not there yet, once its hash is the expected one."""
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=file.parent) as temporary:
            new = Path(temporary, file.name)
            fetch(new)
            verify(new, digest(new), expected).replace(file)
    return verify(file, digest(file), expected)


def verify(file: Path, found: str, expected: str) -> Path:
    """Return the file if its hash is the expected one, else refuse it by name."""
    if found != expected:
        raise InstallError(f"Refused {file}: hash {found}, not {expected}. Delete it, try again.")
    return file


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def git_tree(archive: Path) -> str:
    """Git's hash of the files in an archive: GitHub may pack the same files differently any day."""
    root: dict = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                folder, name = root, ""
                for part in PurePosixPath(member.name).parts[1:]:  # the first is the archive's own
                    folder, name = folder.setdefault(name, {}) if name else folder, part
                if member.issym():
                    folder[name] = (b"120000", git_hash(b"blob", member.linkname.encode()))
                elif member.isfile():
                    mode = b"100755" if member.mode & 0o100 else b"100644"
                    folder[name] = (mode, git_hash(b"blob", tar.extractfile(member).read()))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        return f"unreadable ({error})"
    return git_folder(root).hex()


def git_folder(folder: dict) -> bytes:
    """Git's hash of a folder, given as name -> (mode, hash of the file), or folder."""
    rows = []
    for name, entry in folder.items():
        is_folder = isinstance(entry, dict)
        mode, digest = (b"40000", git_folder(entry)) if is_folder else entry
        rows.append((name + "/" * is_folder, b"%s %s\0%s" % (mode, name.encode(), digest)))
    return git_hash(b"tree", b"".join(row for _, row in sorted(rows)))


def git_hash(kind: bytes, data: bytes) -> bytes:
    return hashlib.sha1(b"%s %d\0%s" % (kind, len(data), data)).digest()


def download(url: str, file: Path) -> None:
    """Fetch a URL, through the proxy if the environment names one."""
    if os.environ.get("PIP_NO_INDEX", "0").lower() not in ("", "0", "false", "no", "off"):
        raise UnreachableError(f"{url}: PIP_NO_INDEX is set, and it is not in pip's cache")
    print(f"Fetching {url}", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, file.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{url}: {error}") from error


def download_sdist(file: Path) -> None:
    """Fetch the sdist with pip, which checks the hash before it runs anything of it.

    pip 26.3 and later refuse it, because one of its extras names a URL (an extra that REPLACEMENTS
    drops); then an older pip fetches it, from a folder of its own.
    """
    print(f"Fetching {SDIST} from the package index", flush=True)
    requirement = file.parent / "requirement.txt"
    requirement.write_text(f"pb1-detectron2==0.6 --hash=sha256:{SDIST_SHA256}\n")
    command = [
        *("download", "--no-deps", "--no-binary=:all:", "--no-build-isolation"),
        *("--require-hashes", "-r", requirement, "-d", file.parent),
    ]
    remedy = "Is the package index reachable (pip's index-url, proxy, find-links)?"
    try:
        run_pip(*command, remedy=remedy)
    except InstallError:
        older = file.parent / "older_pip"
        run_pip("install", "--target", older, OLDER_PIP, remedy=remedy)
        run_pip(*command, remedy=remedy, python_path=older)


def replace(root: Path, row: Replacement) -> None:
    """Apply one row of the table; a row that does not fit exactly is an error."""
    file = root / row.file
    text = file.read_text(encoding="utf-8")
    if text.count(row.old) != row.count:
        raise InstallError(
            f"{row.file}: {row.old!r} occurs {text.count(row.old)} times, expected {row.count} "
            f"({row.reason}): the table REPLACEMENTS does not fit this source."
        )
    file.write_text(text.replace(row.old, row.new), encoding="utf-8")


def modernise(root: Path) -> None:
    """Bring the unpacked sdist up to date, so that it builds as a pure-Python wheel."""
    for row in REPLACEMENTS:
        replace(root, row)
    (root / "detectron2" / "_C.py").write_text(STAND_IN, encoding="utf-8")


def pip_install(source: Path, remedy: str) -> None:
    """Build a wheel from the source and install it with its dependencies."""
    print(f"Building a wheel from {source.name}", flush=True)
    run_pip("install", "--no-build-isolation", "-c", CONSTRAINTS, source, remedy=remedy)


def install_official(archive: str, folder: Path) -> str:
    if "://" in archive:
        file = folder / f"detectron2-{COMMIT}.tar.gz"
        cached(file, lambda new: download(archive, new), git_tree, COMMIT_TREE)
    else:
        file = verify(Path(archive).resolve(), git_tree(Path(archive)), COMMIT_TREE)
    pip_install(file, "Without a C++ compiler, take `--source sdist`, which compiles nothing.")
    return f"official archive at commit {COMMIT[:8]}"


def install_sdist(folder: Path) -> str:
    sdist = cached(folder / f"{SDIST}.tar.gz", download_sdist, sha256, SDIST_SHA256)
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(sdist) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # 3.12 asks for it
            tar.extractall(temporary)
        modernise(Path(temporary, SDIST))
        pip_install(Path(temporary, SDIST), f"Compare your setuptools with {CONSTRAINTS}.")
    return "PyPI sdist pb1-detectron2 0.6, modernised"


def install(source: str, archive: str) -> str:
    """Install Detectron2 if there is none; return what happened and why, in one line."""
    version = installed_version()
    if version:
        return f"already installed ({version})"
    require("torch", "torchvision", "setuptools")
    why = "as --source asked for it"
    if source == "auto" and not can_compile():
        source, why = "sdist", "as there is no C++ compiler (or no Python.h) for the official one"
    with download_folder() as folder:
        if source != "sdist":
            try:
                what = install_official(archive, folder)
                return f"{what} ({installed_version()}), as it could be reached"
            except UnreachableError as error:
                if source == "official":
                    raise
                print(f"No official archive: {error}", flush=True)
                why = "as the official archive could not be reached"
        return f"{install_sdist(folder)} ({installed_version()}), {why}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--source", choices=("auto", "official", "sdist"), default="auto")
    parser.add_argument(
        "--archive", default=ARCHIVE_URL, metavar="URL_OR_PATH", help="a copy of the official one"
    )
    arguments = parser.parse_args()
    try:
        print("Detectron2:", install(arguments.source, arguments.archive))
    except (InstallError, OSError) as error:
        print(f"Detectron2 was not installed. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
