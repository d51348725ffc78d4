"""Published weights are fetched by name, here from a local server."""

from __future__ import annotations

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from publishers import PUBLISHERS, native_state

from swinv2_backbone import VARIANTS, build_backbone, load_checkpoint
from swinv2_backbone.checkpoints import digests
from swinv2_backbone.checkpoints import fetch as download
from swinv2_backbone.checkpoints.satlas import SATLAS
from swinv2_backbone.variants import RELEASES, RELEASES_URL

TINY = "swinv2_tiny_window8_256"
SEED = "swinv2-tiny-w8_3rdparty_in1k-256px"
FILE = "swinv2-tiny-w8_3rdparty_in1k-256px_20220803-e318968f.pth"


class Server:
    """A server of the files of a dict, which records requests and can break off a transfer."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cut_after: int | None = None
        self.length_known = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                server.requests.append(self.path)
                content = server.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                if server.length_known:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: server.cut_after])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SWINV2_CACHE", str(tmp_path / "cache"))
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return tmp_path / "cache"


@pytest.fixture
def zoo(server, monkeypatch, tmp_path) -> Server:
    """Let the server be mmpretrain's, with a stand-in for the tiny model's file and its hash."""
    torch.save(PUBLISHERS["mmpretrain"](native_state(TINY), TINY), tmp_path / "x.pth")
    server.files[f"/{FILE}"] = content = (tmp_path / "x.pth").read_bytes()
    monkeypatch.setattr(download, "RELEASES_URL", server.url)
    monkeypatch.setitem(digests.DIGESTS, FILE, hashlib.sha256(content).hexdigest()[:8])
    return server


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", RELEASES)
def test_every_published_variant_has_an_address_by_both_names(name):
    release = RELEASES[name]
    url = download.published_url(name)
    assert url == download.published_url(release.seed_name)
    assert url.startswith(RELEASES_URL) and url.startswith("https://")
    file = url.rpartition("/")[2]
    assert file.startswith(f"{release.seed_name}_20220803-") and file.endswith(".pth")
    assert len(digests.DIGESTS[file]) == 8
    assert ("/pretrain/" in url) == (release.num_classes == 21841)


def test_all_twelve_rows_are_there():
    assert len({release.path for release in RELEASES.values()}) == 12
    assert set(VARIANTS) - set(RELEASES) == {"swinv2_huge", "swinv2_giant"}


def test_every_file_of_satlas_has_an_address_a_hash_and_a_variant():
    assert len(SATLAS) == 14
    for name, file in SATLAS.items():
        url = download.published_url(name)
        assert url.startswith("https://") and url.endswith(f"/{file.path}")
        assert len(digests.DIGESTS[file.path]) == 8 and file.path.startswith(name[len("satlas_") :])
        assert len(file.bands) == len(file.mean) == len(file.std) and file.variant in VARIANTS
    with pytest.raises(ValueError, match="no weights of satlas_x are published; there are: s"):
        download.check_source("swinv2://satlas_x")


@pytest.mark.parametrize("source", [f"swinv2://{TINY}", f"swinv2://{SEED}"])
@pytest.mark.heavy
def test_weights_are_fetched_once_and_then_offline(source, zoo, cache, capfd):
    model = build_backbone(TINY)
    report = load_checkpoint(model, source)
    assert report.layout == "mmpretrain" and len(zoo.requests) == 1
    assert left_behind(cache) == [FILE]
    assert "100%" in capfd.readouterr().err  # the progress bar
    zoo.close()
    load_checkpoint(model, source)
    assert len(zoo.requests) == 1


@pytest.mark.parametrize("name", [TINY, SEED])
@pytest.mark.heavy
def test_the_builder_takes_the_publishers_name(name, zoo):
    model = build_backbone(name, weights="mmpretrain", window_size=16)
    expected = native_state(TINY)["norms.res5.weight"]
    assert torch.equal(model.norms["res5"].weight, expected)
    assert model.pretrained_window_sizes == ((8, 8),) * 4


def test_another_hash_is_refused_and_not_kept(zoo, cache, monkeypatch):
    monkeypatch.setitem(digests.DIGESTS, FILE, "00000000")
    with pytest.raises(
        ValueError,
        match=f"{FILE} does not have the hash in its name.*not 00000000; it was not kept",
    ):
        load_checkpoint(build_backbone(TINY), f"swinv2://{TINY}")
    assert left_behind(cache) == []


@pytest.mark.heavy
def test_a_file_damaged_in_the_cache_is_refused(zoo, cache):
    load_checkpoint(build_backbone(TINY), f"swinv2://{TINY}")
    with (cache / FILE).open("r+b") as file:
        file.seek(100_000)
        file.write(b"\xff\xff")
    with pytest.raises(ValueError, match=f"{FILE} is damaged.*delete it and fetch it again"):
        load_checkpoint(build_backbone(TINY), f"swinv2://{TINY}")


@pytest.mark.parametrize("length_known", [True, False])
def test_a_broken_transfer_is_reported_and_cleaned_up(length_known, zoo, cache):
    zoo.cut_after, zoo.length_known = 2_000_000, length_known
    words = "broke after 2000000 of" if length_known else "does not have the hash in its name"
    with pytest.raises((ConnectionError, ValueError), match=words):
        download.fetch(f"swinv2://{TINY}")
    assert left_behind(cache) == []
    zoo.cut_after = None
    assert download.fetch(f"swinv2://{TINY}").name == FILE  # and the next attempt works


def test_an_interrupted_transfer_is_cleaned_up(zoo, cache, monkeypatch):
    def interrupt(*args) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.fetch(f"swinv2://{TINY}")
    assert left_behind(cache) == []


def test_a_file_that_does_not_exist_is_reported(server, monkeypatch, cache):
    monkeypatch.setattr(download, "RELEASES_URL", server.url)
    with pytest.raises(ConnectionError, match=f"{FILE}: the server returned 404"):
        download.fetch(f"swinv2://{TINY}")
    assert left_behind(cache) == []


def test_no_network_is_reported_with_a_remedy(server, monkeypatch, cache):
    server.close()
    monkeypatch.setattr(download, "RELEASES_URL", server.url)
    with pytest.raises(ConnectionError, match=f"{FILE} cannot be fetched.*by hand"):
        download.fetch(f"swinv2://{TINY}")


def test_unknown_and_unpublished_names_are_refused():
    with pytest.raises(ValueError, match=r"unknown variant 'swinv2_nano'; there are: swinv2_tiny"):
        download.fetch("swinv2://swinv2_nano")
    with pytest.raises(ValueError, match="no weights of swinv2_huge are published"):
        download.fetch("swinv2://swinv2_huge")


def test_addresses_are_kept_apart(server, cache):
    server.files = {"/a/model.safetensors": b"a", "/b/model.safetensors": b"b"}
    paths = [download.fetch(f"{server.url}{place}/model.safetensors") for place in "ab"]
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]
    assert all(path.parent.parent == cache for path in paths)


def test_a_hash_in_the_name_of_an_address_counts(server, cache):
    digest = hashlib.sha256(b"weights").hexdigest()[:8]
    server.files = {f"/x-{digest}.pth": b"weights", "/x-0123abcd.pth": b"weights"}
    assert download.fetch(f"{server.url}x-{digest}.pth").read_bytes() == b"weights"
    with pytest.raises(ValueError, match="not 0123abcd"):
        download.fetch(f"{server.url}x-0123abcd.pth")


def test_a_stated_digest_counts_and_is_not_sent(server, cache):
    server.files = {"/x.pth": b"weights", "/x-0123abcd.pth": b"weights"}
    digest = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(ValueError, match=f"#sha256=: .* {digest}, not {64 * '0'}; it was not kept"):
        download.fetch(f"{server.url}x.pth#sha256={64 * '0'}")
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert download.fetch(f"{server.url}x.pth#sha256={digest}").read_bytes() == b"weights"
    # The digest of the user is of the whole file, and that in the name of another one.
    assert download.fetch(f"{server.url}x-0123abcd.pth#sha256={digest}").is_file()
    assert server.requests == ["/x.pth", "/x.pth", "/x-0123abcd.pth"]


def test_the_cache_is_torch_hubs_by_default(monkeypatch, tmp_path):
    assert download.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SWINV2_CACHE")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert download.cache_folder() == tmp_path / "hub" / "checkpoints"


def test_paths_are_returned_unchanged(tmp_path):
    assert download.fetch(tmp_path / "x.pth") == tmp_path / "x.pth"
