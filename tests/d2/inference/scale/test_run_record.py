"""The record of a run: its images and settings stay what they were when it began."""

from __future__ import annotations

import processes
import pytest
from shard_runs import SETTINGS, begin

from swinv2_backbone.d2.inference.scale import first, run_record
from swinv2_backbone.d2.inference.scale.first import first_text
from swinv2_backbone.d2.inference.scale.run_record import (
    find_run,
    list_images,
    record,
    require_same,
    tidy,
    wait_for_run,
)
from swinv2_backbone.d2.inference.scale.sources import Source

FILES = [Source(f"é {number}\n.png") for number in range(9)]
MEMBERS = [Source(f"a.tar/{number}.png", "a.tar", 512 * number, 7) for number in range(8)]


def test_every_shard_reads_its_own_images(tmp_path):
    run = begin(tmp_path, [*FILES, *MEMBERS], size=5)
    assert (run.count, run.shards) == (17, 4)
    again = find_run(tmp_path)
    assert again == run
    parts = [again.sources(shard) for shard in range(4)]
    assert sum(parts, []) == [*FILES, *MEMBERS]
    assert [len(part) for part in parts] == [run.size(shard) for shard in range(4)] == [5, 5, 5, 2]


def test_of_two_beginnings_the_first_holds_and_leaves_one_list(tmp_path):
    """The folder of images has grown between the two."""
    one, other = (list_images(tmp_path, FILES[:n], 5, "jsonl", SETTINGS) for n in (8, 9))
    assert record(one) == record(other) == wait_for_run(tmp_path)
    tidy(one)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([one.images, "run.json"])


def test_a_run_continues_only_with_its_own_settings(tmp_path):
    run = begin(tmp_path, FILES)
    require_same(run, {"--confidence": 0.5})
    with pytest.raises(ValueError, match=r"other settings.*\n  --confidence: 0.5 then, 0.4 now"):
        require_same(run, {"--confidence": 0.4})
    with pytest.raises(ValueError, match=r"--tile: None then, 1024 now"):
        require_same(run, {"--confidence": 0.5, "--tile": 1024})
    with pytest.raises(ValueError) as long:
        require_same(run, {**SETTINGS, "--input": ["a.png"] * 100_000})
    assert len(str(long.value)) < 1000


def test_a_run_that_does_not_begin_is_not_awaited_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(run_record, "WAIT", 0.01)
    with pytest.raises(TimeoutError, match="has the process of RANK 0 started"):
        wait_for_run(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_all_processes_get_the_text_of_the_first(tmp_path, monkeypatch, links):
    if not links:

        def link(*paths):
            raise PermissionError("no links here")

        monkeypatch.setattr("swinv2_backbone.d2.inference.scale.first.os.link", link)
    path = (
        tmp_path / "new" / "a"
    )  # a later process may be here before the one that makes the folder
    assert first_text(path, "first") == first_text(path, "second") == "first"
    assert [path.name for path in path.parent.iterdir()] == ["a"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    path, write = tmp_path / "a", first.write_text

    def overtaken(mine, text):
        write(path, "first")
        write(mine, text)

    monkeypatch.setattr(first, "write_text", overtaken)
    assert first_text(path, "second") == path.read_text(encoding="utf-8") == "first"


def test_processes_that_begin_at_once_agree(tmp_path):
    def one(number: int) -> None:
        text = first_text(tmp_path / "a", str(number) * 100_000)
        (tmp_path / f"seen{number}").write_text(text, encoding="utf-8")

    started = [processes.start(one, number) for number in range(4)]
    for process in started:
        process.join(30)
        assert process.exitcode == 0
    assert len({path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}) == 1
