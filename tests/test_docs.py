"""README.md and docs/: every command and snippet is run, or marked with a reason and checked."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from commands import NEVER_SHORT, SHORT, check, check_config, check_inline, run, script_of
from documents import (
    BLOCKS,
    LANGUAGES,
    NEEDS,
    PAGES,
    ROOT,
    TAKES,
    Block,
    anchors_of,
    inline_commands,
    is_command,
    links_of,
    prose_of,
)
from publishers import PUBLISHERS, native_state
from reader import given, reader_folder

from swinv2_backbone.variants import variant_name

MARKS = ("", "slow", "needs", "file", "output", *TAKES)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")
TRAINING = (
    "tools/train_net.py --config-file configs/mask_rcnn_swinv2_demo.yaml SOLVER.MAX_ITER 2 "
    "SOLVER.WARMUP_ITERS 1 MODEL.DEVICE cpu OUTPUT_DIR output"
)


def of(language: str, *marks: str) -> list:
    """Return the blocks of a language with one of the marks, as parameters."""
    found = [block for block in BLOCKS if block.language == language and block.mark in marks]
    return [pytest.param(block, id=block.name) for block in found]


def of_downloads(language: str) -> list:
    """Return the blocks that need only the network, which is replaced."""
    return [case for case in of(language, "needs") if case.values[0].details == ["network"]]


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    return reader_folder(tmp_path_factory.mktemp("reader"))


@pytest.fixture
def there(reader, monkeypatch) -> Path:
    """Work in the same folder, without the network."""
    monkeypatch.chdir(reader)
    with mock.patch.dict(os.environ):
        yield reader


@pytest.fixture(scope="module")
def trained(reader) -> Path:
    """Run a short training, whose ``output`` the documentation assumes; return the folder."""
    before = Path.cwd()
    os.chdir(reader)
    try:
        run(TRAINING.split())
    finally:
        os.chdir(before)
    return reader / "output"


@pytest.fixture
def published(there, monkeypatch) -> Iterator[None]:
    """Replace published files by random ones of the same layout."""

    def fetch(source: str | os.PathLike) -> Path:
        source = os.fspath(source)
        if not source.startswith("swinv2://"):
            return Path(source)
        name = variant_name(source.removeprefix("swinv2://"))
        path = there / f"{name}.pth"
        if not path.exists():
            torch.save(PUBLISHERS["mmpretrain"](native_state(name), name), path)
        return path

    monkeypatch.setattr("swinv2_backbone.build.fetch", fetch)
    monkeypatch.setattr("swinv2_backbone.checkpoints.load.fetch", fetch)
    yield


def test_blocks_have_a_known_language_and_mark():
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block.name}: no language"
        assert block.mark in MARKS, f"{block.name}: {block.mark!r}"
        if block.mark == "needs":
            assert set(block.details) <= NEEDS, f"{block.name}: {block.detail}"


def test_no_command_is_where_it_is_not_checked():
    for block in BLOCKS:
        if block.language == "text":
            assert not any(map(is_command, block.text.splitlines())), block.name
        assert block.language != "yaml" or block.mark == "file", f"{block.name}: no test reads it"
    for page in PAGES:
        for line in prose_of(page).splitlines():
            assert not is_command(line), f"{page.name}: not in a block: {line}"


@pytest.mark.parametrize("block", of("bash", "", "slow", "needs", *TAKES))
def test_commands_are_known_with_their_options_and_keys(block, there, trained):
    for words in block.commands:
        try:
            check(words)
        except (OSError, SystemExit, ValueError) as error:
            pytest.fail(f"{block.name}: {' '.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_prose_are_known_with_their_options(page):
    for words in inline_commands(page):
        check_inline(words)


@pytest.mark.parametrize("block", of("bash", ""))
def test_commands_run(block, there, trained):
    run_anew(block, there)


@pytest.mark.slow
@pytest.mark.parametrize("block", of("bash", "slow"))
def test_slow_commands_run(block, there, trained):
    run_anew(block, there)


def run_anew(block: Block, folder: Path) -> None:
    """Run the commands of a block without the results of other blocks."""
    remove_results(folder)
    for words in block.commands:
        run(words)


def remove_results(folder: Path) -> None:
    for earlier in ("drawn", "output/analysis"):
        shutil.rmtree(folder / earlier, ignore_errors=True)
    for earlier in ("fruit.yaml", "detector.onnx"):
        (folder / earlier).unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("block", of("bash", *TAKES))
def test_long_commands_run_in_a_short_form(block, there, trained):
    remove_results(there)
    for words in block.commands:
        name = words[0] if words[0] in ("make", "pip", "source") else script_of(words)[0]
        if name not in NEVER_SHORT:
            run(words, short=name in SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("block", of_downloads("bash"))
def test_commands_run_with_replaced_downloads(block, published):
    for words in block.commands:
        run(words)


@pytest.mark.parametrize("block", of("python", ""))
def test_snippets_run(block, there, trained, capsys):
    capsys.readouterr()
    exec(compile(block.text, block.name, "exec"), given(there))
    if block.output is not None:
        compare_output(capsys.readouterr().out, block.output)


def compare_output(found: str, expected: str) -> None:
    """Compare two texts: words exactly, numbers to 5 %, because they differ between processors."""
    assert NUMBER.sub("#", found) == NUMBER.sub("#", expected), found
    numbers = ([float(number) for number in NUMBER.findall(text)] for text in (found, expected))
    assert next(numbers) == pytest.approx(next(numbers), rel=0.05), found


@pytest.mark.slow
@pytest.mark.parametrize("block", of_downloads("python"))
def test_snippets_run_with_replaced_downloads(block, published, there):
    exec(compile(block.text, block.name, "exec"), given(there))


@pytest.mark.parametrize("block", of("python", "needs", *TAKES))
def test_snippets_that_are_not_run_call_what_is_there(block):
    """Their imports work, and the calls match the signatures."""
    tree, known = ast.parse(block.text), {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            known |= {name.name: getattr(module, name.name) for name in node.names}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in known:
            keywords = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(known[call.func.id]).bind(*call.args, **keywords)


@pytest.mark.parametrize("block", of("yaml", "file") + of("python", "file"))
def test_files_of_the_reader_load(block, there):
    if block.language == "yaml" or "lr_multiplier" in block.text:
        check_config(block.detail, [])
    else:  # code of the reader's
        check_config("configs/mask_rcnn_swinv2.yaml", [], [Path(block.detail).stem])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_titles_not_names_of_files(page):
    assert not re.findall(r"\[[\w/]+\.md\]\(", prose_of(page))


def test_quoted_lines_of_code_exist():
    page = (ROOT / "docs/TRAPS.md").read_text()
    quoted = re.findall(r"^Here, in `([\w/.]+)`:\s+`([^`]+)`", page, re.M)
    assert len(quoted) == len(re.findall(r"^## ", page, re.M))
    for file, line in quoted:
        line = " ".join(line.split())  # the page may break it
        assert line in (ROOT / "swinv2_backbone" / file).read_text(), f"{file}: {line}"


def test_every_page_is_in_the_list_of_pages():
    listed = re.findall(r"^   ([\w/]+)$", (ROOT / "docs/contents.rst").read_text(), re.M)
    pages = [page.relative_to(ROOT / "docs") for page in PAGES if ROOT / "docs" in page.parents]
    assert sorted(listed) == sorted(str(page.with_suffix("")) for page in pages)


def test_every_picture_is_shown():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links_of(page)}
    pictures = set()
    for ending in ("png", "jpg", "svg"):
        pictures.update((ROOT / "docs").rglob(f"*.{ending}"))
    assert pictures and pictures <= shown
