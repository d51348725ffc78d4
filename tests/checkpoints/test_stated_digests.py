"""Sources with the digest of their file, SOURCE#sha256=HEX, wherever a source is accepted."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest
import torch
from checkpoint_files import assert_equal, small_backbone

from swinv2_backbone import load_checkpoint, save_checkpoint
from swinv2_backbone.checkpoints.fetch import check_source, fetch
from swinv2_backbone.cli import convert_checkpoint, train, words
from swinv2_backbone.recipes import find_trained
from swinv2_backbone.source_digest import split_digest

OTHER = 64 * "0"
MALFORMED = [
    "sha256=",
    "sha256",
    "sha256=abc",
    f"sha256={63 * '0'}",
    f"sha256={65 * '0'}",
    f"sha256={63 * '0'}g",
    f"sha256:{OTHER}",
    f"SHA256={OTHER}",
    f"sha-256={OTHER}",
    f"sha512={128 * '0'}",
    f"sha1={40 * '0'}",
    f"md5={32 * '0'}",
    f"blake2b={128 * '0'}",
    f"egg=swin&sha256={OTHER}",
    OTHER,
]


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    save_checkpoint(small_backbone(), file)
    return file


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", [str.lower, str.upper])
def test_the_stated_digest_is_accepted_without_a_word(form, weights, caplog):
    model = small_backbone()
    report = load_checkpoint(model, f"{weights}#sha256={form(digest_of(weights))}")
    assert report.complete and report.source == str(weights)
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_another_digest_is_refused_with_both_and_the_remedy(weights):
    model, found = small_backbone(), digest_of(weights)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"{found}, not {OTHER}.* delete it and fetch it again"):
        load_checkpoint(model, f"{weights}#sha256={OTHER}")
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize("fragment", MALFORMED)
@pytest.mark.parametrize(
    "place", ["weights.pth", "swinv2://swinv2_tiny_window8_256", "https://x.org/a", "hf://a/b"]
)
def test_a_malformed_digest_or_another_algorithm_is_named(place, fragment):
    for read in (fetch, check_source):
        with pytest.raises(ValueError, match="all 64 hexadecimal digits, got '#"):
            read(f"{place}#{fragment}")


def test_a_digest_of_nothing_does_not_mean_random_weights():
    with pytest.raises(ValueError, match="SOURCE#sha256=HEX"):
        check_source(f"#sha256={OTHER}")


@pytest.mark.parametrize("name", ["a#1.pth", "a#sha256=abc.pth", f"a#sha256={OTHER}", "md5#md5"])
def test_a_file_whose_name_has_a_hash_sign_is_read(name, weights):
    strange = weights.with_name(name)
    strange.write_bytes(weights.read_bytes())
    check_source(str(strange))
    assert fetch(str(strange)) == strange
    assert fetch(f"{strange}#sha256={digest_of(weights)}") == strange
    assert load_checkpoint(small_backbone(), strange).complete


def test_other_fragments_of_an_address_are_left():
    assert split_digest("https://x.org/a.pth#part") == ("https://x.org/a.pth#part", None)


def test_the_digest_of_a_folder_is_that_of_its_weight_file(weights, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    file = weights.rename(folder / "model.safetensors")
    assert fetch(f"{folder}#sha256={digest_of(file)}") == folder
    with pytest.raises(ValueError, match="model.safetensors is not the file that was asked for"):
        fetch(f"{folder}#sha256={OTHER}")
    file.unlink()
    with pytest.raises(FileNotFoundError, match="none of model.safetensors"):
        fetch(f"{folder}#sha256={OTHER}")


def test_a_file_that_does_not_exist_is_named_without_its_digest(tmp_path):
    for read in (fetch, check_source):
        with pytest.raises(FileNotFoundError, match="no file '.*nothing.pth'"):
            read(f"{tmp_path / 'nothing.pth'}#sha256={OTHER}")


def test_a_file_in_the_cache_is_checked(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("SWINV2_CACHE", str(tmp_path / "cache"))
    address = "https://x.org/weights.safetensors"
    place = tmp_path / "cache" / hashlib.sha256(address.encode()).hexdigest()[:8] / weights.name
    place.parent.mkdir(parents=True)
    place.write_bytes(weights.read_bytes())
    assert fetch(f"{address}#sha256={digest_of(weights)}") == place
    with pytest.raises(ValueError, match="is not the file that was asked for"):
        fetch(f"{address}#sha256={OTHER}")


def test_swinv2_convert_takes_a_digest(weights, tmp_path):
    target = tmp_path / "out.safetensors"
    convert_checkpoint.main([f"{weights}#sha256={digest_of(weights)}", str(target)])
    assert target.is_file()
    with pytest.raises(SystemExit, match="is not the file that was asked for"):
        convert_checkpoint.main([f"{weights}#sha256={OTHER}", str(tmp_path / "no.safetensors")])


@pytest.mark.parametrize(
    "config, change",
    [("mask_rcnn_swinv2", "MODEL.WEIGHTS {}"), ("mask_rcnn_swinv2.py", "train.init_checkpoint={}")],
)
def test_a_training_checks_early_that_the_file_of_a_digest_exists(config, change, weights):
    def check(source: str) -> None:
        opts = change.format(source).split(" ")
        train.check(
            argparse.Namespace(
                config_file=config,
                opts=opts,
                imports=[],
                fast_dev_run=False,
                resume=False,
                exported=None,
                eval_only=False,
            )
        )

    check(f"{weights}#sha256={OTHER}")
    with pytest.raises(FileNotFoundError, match="no file '.*absent.pth'"):
        check(f"{weights.with_name('absent.pth')}#sha256={OTHER}")
    with pytest.raises(ValueError, match="all 64 hexadecimal digits"):
        check(f"{weights}#sha256=abc")


def test_a_trained_model_is_found_by_its_checkpoint_or_folder_with_a_digest(weights):
    folder = weights.parent
    (folder / "config.yaml").write_text("VERSION: 2\n")
    checkpoint = weights.rename(folder / "model_final.pth")
    for source in (checkpoint, folder):
        found = find_trained(f"{source}#sha256={OTHER}")
        assert found == (folder / "config.yaml", f"{checkpoint}#sha256={OTHER}")


def test_a_command_passes_weights_with_a_digest_on(weights):
    argv = ["mask_rcnn_swinv2", "MODEL.WEIGHTS", f"{weights}#sha256={OTHER}"]
    assert words.of_evaluation(argv)[-1] == argv[-1]
    with pytest.raises(FileNotFoundError, match="no file of weights '.*absent.pth'"):
        words.of_evaluation([*argv[:2], f"absent.pth#sha256={OTHER}"])
