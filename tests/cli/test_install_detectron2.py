"""tools/install_detectron2.py, without a network, without pip, and without Detectron2."""

import io
import subprocess
import tarfile
import types
from pathlib import Path

import pytest
from scripts import tool

from swinv2_backbone.cli import archives, detectron2_sdist, pip

CONSTRAINTS = Path("constraints.txt")


@pytest.fixture
def script(monkeypatch):
    """The command as a module; any subprocess fails the test."""

    def no_subprocess(*command, **_):
        pytest.fail(f"ran {command}")

    monkeypatch.setattr(pip, "run", no_subprocess)
    return tool("install_detectron2")


def answer(code: int, output: str = "", error: str = ""):
    """Return a replacement of `run` whose command ends like this."""
    return lambda *command, **_: subprocess.CompletedProcess(command, code, output, error)


# The table


@pytest.mark.parametrize("count", [1, 2])
def test_replacement_changes_every_occurrence_and_nothing_else(script, tmp_path, count):
    (tmp_path / "a.py").write_text("keep np.bool_\n" + "x = np.bool)\n" * count)
    detectron2_sdist.replace(
        tmp_path, detectron2_sdist.Replacement("a.py", "np.bool)", "bool)", count, "gone")
    )
    assert (tmp_path / "a.py").read_text() == "keep np.bool_\n" + "x = bool)\n" * count


@pytest.mark.parametrize("found", [0, 1, 3])
def test_replacement_that_does_not_match_names_file_and_pattern(script, tmp_path, found):
    text = "np.bool)\n" * found
    (tmp_path / "a.py").write_text(text)
    row = detectron2_sdist.Replacement("a.py", "np.bool)", "bool)", 2, "gone from numpy")
    with pytest.raises(pip.InstallError) as raised:
        detectron2_sdist.replace(tmp_path, row)
    message = str(raised.value)
    assert all(part in message for part in ("a.py", "'np.bool)'", f"{found} times", "expected 2"))
    assert (tmp_path / "a.py").read_text() == text


def test_every_row_has_a_change_and_a_reason(script):
    assert len({(row.file, row.old) for row in detectron2_sdist.REPLACEMENTS}) == len(
        detectron2_sdist.REPLACEMENTS
    )
    for row in detectron2_sdist.REPLACEMENTS:
        assert row.times >= 1 and row.reason and row.old != row.new


def unpacked_sdist(script, root: Path) -> Path:
    """Write files that every row of the table matches."""
    for row in detectron2_sdist.REPLACEMENTS:
        file = root / row.file
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as out:
            out.write((row.old + "\n") * row.times)
    return root


def test_modernize_applies_the_whole_table(script, tmp_path):
    detectron2_sdist.modernize(unpacked_sdist(script, tmp_path))
    for row in detectron2_sdist.REPLACEMENTS:
        assert row.new in (tmp_path / row.file).read_text()
    assert f'"{detectron2_sdist.VERSION}"' in (tmp_path / "detectron2/__init__.py").read_text()
    assert (tmp_path / "detectron2/_C.py").exists()


def test_modernize_refuses_a_source_without_the_pattern_of_one_file(script, tmp_path):
    unpacked_sdist(script, tmp_path)
    (tmp_path / "detectron2/structures/masks.py").write_text("as in some later version\n")
    with pytest.raises(pip.InstallError, match=r"detectron2/structures/masks\.py: 'np\.bool\)'"):
        detectron2_sdist.modernize(tmp_path)


def test_stand_in_raises_on_use_and_only_then(script):
    stand_in = types.ModuleType("detectron2._C")
    exec(detectron2_sdist.STAND_IN, stand_in.__dict__)
    with pytest.raises(NotImplementedError, match="detectron2._C.nms_rotated is compiled code"):
        stand_in.nms_rotated  # noqa: B018
    assert not hasattr(stand_in, "__path__")
    assert not stand_in.has_cuda() and "pure-Python" in stand_in.get_compiler_version()


# Hashes


def test_wrong_hash_is_refused_by_the_file_s_name(script, tmp_path):
    file = tmp_path / "pb1-detectron2-0.6.tar.gz"
    file.write_bytes(b"something else")
    with pytest.raises(pip.InstallError) as raised:
        archives.cached(file, None, archives.sha256, detectron2_sdist.SDIST_SHA256)
    assert str(file) in str(raised.value) and detectron2_sdist.SDIST_SHA256 in str(raised.value)


def test_cache_keeps_a_good_file_and_fetches_it_once(script, tmp_path):
    expected = archives.hashlib.sha256(b"good").hexdigest()
    fetched = []

    def fetch(file: Path) -> None:
        fetched.append(file)
        file.write_bytes(b"good")

    for _ in range(2):
        file = archives.cached(tmp_path / "a.tar.gz", fetch, archives.sha256, expected)
        assert file.read_bytes() == b"good"
    assert len(fetched) == 1 and list(tmp_path.iterdir()) == [file]


def test_cache_does_not_keep_a_bad_file(script, tmp_path):
    with pytest.raises(pip.InstallError, match="Refused"):
        archives.cached(
            tmp_path / "a.tar.gz", lambda file: file.write_bytes(b"bad"), archives.sha256, "0" * 64
        )
    assert not list(tmp_path.iterdir())


# (path, content, mode), and the hash of `git write-tree` for them
FILES = [
    ("b.d/z", b"z", 0o644),
    ("run", b"#!/bin/sh\n", 0o755),
    ("a/x", b"hello\n", 0o664),
    ("a.txt", b"", 0o664),
]
TREE = "fde099a119d1019448381d11a169286571711328"


def source_archive(path: Path, files: list[tuple[str, bytes, int]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content, mode in files:
            member = tarfile.TarInfo(f"detectron2-0000/{name}")
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("detectron2-0000/link")
        link.type, link.linkname = tarfile.SYMTYPE, "a/x"
        tar.addfile(link)
    return path


def test_git_tree_is_what_git_computes(script, tmp_path):
    assert archives.git_tree(source_archive(tmp_path / "a.tar.gz", FILES)) == TREE


@pytest.mark.parametrize(
    "changed", [("a/x", b"hallo\n", 0o664), ("a/y", b"hello\n", 0o664), ("a/x", b"hello\n", 0o755)]
)
def test_git_tree_depends_on_content_name_and_mode(script, tmp_path, changed):
    files = [*FILES[:2], changed, FILES[3]]
    assert archives.git_tree(source_archive(tmp_path / "a.tar.gz", files)) != TREE


def test_official_archive_with_other_files_is_refused_before_pip_sees_it(script, tmp_path):
    archive = source_archive(tmp_path / "mirror.tar.gz", FILES)
    with pytest.raises(pip.InstallError, match=f"mirror.tar.gz: hash {TREE}"):
        script.install_official(str(archive), tmp_path, CONSTRAINTS)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_truncated_archive_is_refused_by_name(script, tmp_path, share):
    archive = source_archive(tmp_path / "a.tar.gz", FILES)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(pip.InstallError, match="a.tar.gz: hash unreadable"):
        script.install_official(str(archive), tmp_path, CONSTRAINTS)


# Installation and messages


def test_an_installed_detectron2_is_reported_and_not_touched(script, monkeypatch, capsys):
    monkeypatch.setattr(pip, "run", answer(0, "0.6+cu999\n"))
    monkeypatch.setattr(script, "pip_install", lambda *_: pytest.fail("pip ran"))
    assert script.main([]) is None
    assert capsys.readouterr().out == "Detectron2: already installed (0.6+cu999)\n"


def test_a_missing_detectron2_is_distinguished_from_a_broken_one(script, monkeypatch):
    monkeypatch.setattr(
        pip, "run", answer(1, "", "ModuleNotFoundError: No module named 'detectron2'\n")
    )
    assert script.installed_version() is None
    monkeypatch.setattr(pip, "run", answer(1, "", "ImportError: _C.so: undefined symbol\n"))
    with pytest.raises(pip.InstallError, match=r"undefined symbol\n.*pip uninstall detectron2"):
        script.installed_version()
    monkeypatch.setattr(pip, "run", answer(-11))
    with pytest.raises(pip.InstallError, match="exit status -11"):
        script.installed_version()


@pytest.fixture
def bare(script, monkeypatch, tmp_path):
    """Return the command where Detectron2 is missing until `pip_install` is called."""
    script.asked = []
    monkeypatch.setattr(script, "installed_version", lambda: "9.9" if script.asked else None)
    monkeypatch.setattr(script, "pip_install", lambda source, *_: script.asked.append(source.name))
    monkeypatch.setattr(pip, "run", answer(0, str(tmp_path)))  # pip cache dir
    monkeypatch.setattr(script, "require", lambda *_, **__: None)
    monkeypatch.setattr(script, "can_compile", lambda: True)
    return script


def refuse_network(script, monkeypatch):
    def urlopen(*_, **__):
        raise archives.urllib.error.URLError("no route")

    monkeypatch.setattr(archives.urllib.request, "urlopen", urlopen)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)


def make_sdist(script, monkeypatch, folder: Path) -> None:
    """Put an sdist that matches the table into the cache."""
    folder.mkdir()
    unpacked_sdist(script, folder / "src" / detectron2_sdist.SDIST)
    with tarfile.open(folder / f"{detectron2_sdist.SDIST}.tar.gz", "w:gz") as tar:
        tar.add(folder / "src" / detectron2_sdist.SDIST, detectron2_sdist.SDIST)
    monkeypatch.setattr(
        detectron2_sdist,
        "SDIST_SHA256",
        archives.sha256(folder / f"{detectron2_sdist.SDIST}.tar.gz"),
    )


def test_unreachable_official_archive_falls_back_to_the_sdist_with_a_message(
    bare, monkeypatch, tmp_path, capsys
):
    refuse_network(bare, monkeypatch)
    make_sdist(bare, monkeypatch, tmp_path / "swinv2_backbone")
    line = bare.install("auto", bare.ARCHIVE_URL)
    assert bare.asked == [detectron2_sdist.SDIST]
    assert line == (
        "PyPI sdist pb1-detectron2 0.6, modernized (9.9), "
        "as the official archive could not be reached"
    )
    assert "no route" in capsys.readouterr().out


def test_unreachable_official_archive_is_an_error_if_requested(bare, monkeypatch):
    refuse_network(bare, monkeypatch)
    with pytest.raises(archives.UnreachableError, match="no route"):
        bare.install("official", bare.ARCHIVE_URL)
    assert not bare.asked


def test_sdist_that_a_new_pip_refuses_is_fetched_by_an_older_one(script, monkeypatch, tmp_path):
    asked = []

    def run(*command, python_path=None, **_):
        asked.append((command[2], python_path))
        refused = command[2] == "download" and python_path is None
        return subprocess.CompletedProcess(command, int(refused), "refused by this pip", "")

    monkeypatch.setattr(pip, "run", run)
    detectron2_sdist.download_sdist(tmp_path / "a.tar.gz")
    older = tmp_path / "older_pip"
    assert asked == [("download", None), ("install", None), ("download", older)]


def test_sdist_out_of_reach_shows_the_error_and_the_remedy(script, monkeypatch, tmp_path):
    monkeypatch.setattr(pip, "run", answer(1, "pip's own complaint"))
    with pytest.raises(pip.InstallError) as raised:
        detectron2_sdist.download_sdist(tmp_path / "a.tar.gz")
    message = str(raised.value)
    assert all(part in message for part in ("pip's own complaint", "index-url, proxy"))


def test_no_index_avoids_the_network(bare, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(archives.urllib.request, "urlopen", lambda *_, **__: pytest.fail("network"))
    with pytest.raises(archives.UnreachableError, match="PIP_NO_INDEX"):
        bare.install("official", bare.ARCHIVE_URL)


def test_official_archive_from_a_path_is_installed_if_its_files_are_right(
    bare, monkeypatch, tmp_path
):
    monkeypatch.setattr(bare, "COMMIT_TREE", TREE)
    archive = source_archive(tmp_path / "mirror.tar.gz", FILES)
    line = bare.install("auto", str(archive))
    assert bare.asked == ["mirror.tar.gz"]
    assert line == f"official archive at commit {bare.COMMIT[:8]} (9.9), as it could be reached"


def test_failed_build_shows_the_end_of_the_log_and_the_remedy(script, monkeypatch):
    log = "\n".join([*(f"line {i}" for i in range(100)), "error: g++ not found"])
    monkeypatch.setattr(pip, "run", answer(1, log))
    with pytest.raises(pip.InstallError) as raised:
        pip.run_pip("install", remedy="Take --source sdist.")
    message = str(raised.value)
    assert "error: g++ not found" in message and message.endswith("Take --source sdist.")
    assert "line 99" in message and "line 1\n" not in message


def test_missing_torch_says_how_to_install_it(script, monkeypatch):
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pip.InstallError, match="needs torch .*pip install -c .* torch"):
        script.require("torch", "torchvision", constraints=CONSTRAINTS)


def test_without_a_compiler_the_sdist_is_taken_with_a_message(bare, monkeypatch, tmp_path):
    monkeypatch.setattr(bare, "can_compile", lambda: False)
    monkeypatch.setattr(archives.urllib.request, "urlopen", lambda *_, **__: pytest.fail("network"))
    make_sdist(bare, monkeypatch, tmp_path / "swinv2_backbone")
    assert bare.install("auto", bare.ARCHIVE_URL).endswith(
        "as there is no C++ compiler (or no Python.h) for the official one"
    )


def test_a_compiler_is_searched_on_the_path(script, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    assert not script.can_compile()
