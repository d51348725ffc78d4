"""Fetching weights once, by name or address; the hash in a published file's name is checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from contextlib import suppress
from pathlib import Path

import torch
from torch.hub import tqdm  # the package tqdm if installed, else a plain counter

from swinv2_backbone.checkpoints.digests import DIGESTS, check_stated_digest
from swinv2_backbone.checkpoints.files import weights_in_folder
from swinv2_backbone.checkpoints.hub import HUB, fetch_from_hub, parse_hub_source
from swinv2_backbone.checkpoints.satlas import SATLAS, URL
from swinv2_backbone.source_digest import split_digest
from swinv2_backbone.variants import RELEASES, RELEASES_URL, variant_name

SCHEME = "swinv2://"
FETCHED = (SCHEME, HUB, "http://", "https://")  # beginnings of the sources that are downloaded
TIMEOUT = 60  # seconds without data


def fetch(source: str | os.PathLike) -> Path:
    """Return the local path of a source; download it into the cache if it is not there.

    Args:
        source: ``swinv2://NAME`` with a key of ``VARIANTS`` or ``SATLAS``, or a seed name; an
            address (https:// ...); ``hf://org/name[@revision][/file]``, a repository of the Hugging
            Face Hub; or a path, which is returned unchanged. Each may end in ``#sha256=HEX``, the
            digest of the file, or of the weight file in a folder.

    Raises:
        ValueError: no weights of that name are published, the digest is malformed, or the file
            does not have this digest or the hash in its name.
        OSError: the file cannot be fetched.
        ImportError: a source of the Hub needs huggingface_hub.
    """
    source, digest = split_digest(os.fspath(source))
    path = _local_path(source, digest)
    if digest is not None:
        check_stated_digest(weights_in_folder(path), digest)
    return path


def _local_path(source: str, digest: str | None) -> Path:
    if source.startswith(SCHEME):
        return download(published_url(source.removeprefix(SCHEME)), cache_folder(), digest)
    if source.startswith(HUB):
        return fetch_from_hub(source)
    if re.match(r"https?://", source):
        # One folder per address, because many files have the same name (model.safetensors).
        place = hashlib.sha256(source.encode()).hexdigest()[:8]
        return download(source, cache_folder() / place, digest)
    return Path(os.path.expanduser(source))


def check_source(source: str) -> None:
    """Check early that a name is published or a file exists, without the network.

    An empty source and schemes other than ``swinv2://`` and ``hf://`` are not checked, and of a
    digest only the form.

    Raises:
        ValueError: no weights of that name are published, or a source of the Hub or a digest is
            malformed.
        ImportError: a source of the Hub needs huggingface_hub.
        FileNotFoundError: the file or folder does not exist.
    """
    source, _ = split_digest(source)
    if source.startswith(SCHEME):
        published_url(source.removeprefix(SCHEME))
    elif source.startswith(HUB):
        parse_hub_source(source)
    elif source and "://" not in source and not os.path.exists(os.path.expanduser(source)):
        raise FileNotFoundError(f"no file {source!r}")


def published_url(name: str) -> str:
    """Return the address of the published weights of a variant, or of Satlas.

    Raises:
        ValueError: the name is unknown, or its weights are not published.
    """
    if name in SATLAS:
        return URL + SATLAS[name].path
    if name.startswith("satlas"):
        raise ValueError(f"no weights of {name} are published; there are: {', '.join(SATLAS)}")
    variant = variant_name(name)
    if variant not in RELEASES:
        raise ValueError(f"no weights of {variant} are published; there are: {', '.join(RELEASES)}")
    return RELEASES_URL + RELEASES[variant].path


def cache_folder() -> Path:
    """Return ``$SWINV2_CACHE``, or torch.hub's folder of checkpoints."""
    own = os.environ.get("SWINV2_CACHE")
    return Path(own).expanduser() if own else Path(torch.hub.get_dir()) / "checkpoints"


def download(url: str, folder: Path, digest: str | None = None) -> Path:
    """Return the file of an address in ``folder``; fetch it if it is not there.

    The file appears complete and with the given digest, or else the hash in its name, or not at
    all. A file that is there already is not checked.

    Raises:
        ValueError: the file has another hash.
        ConnectionError: the file cannot be fetched.
    """
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(url).path)).name
    if not name:
        raise ValueError(f"{url} names no file")
    path = folder / name
    if path.exists():
        return path
    # Unique to this call, because other processes and machines may be fetching the same file.
    partial = path.with_name(f"{name}.{uuid.uuid4().hex}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _transfer(url, partial, digest or DIGESTS.get(name) or _hash_in_name(name))
        os.replace(partial, path)
    except urllib.error.HTTPError as error:
        raise ConnectionError(f"{url}: the server returned {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"{url} cannot be fetched: {error}; try again, or put the file into {folder} by hand"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


def _transfer(url: str, target: Path, digest: str | None) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "swinv2_backbone"})
    sha256, received = hashlib.sha256(), 0
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT) as response,
        target.open("wb") as file,
        tqdm(total=response.length, desc=f"fetching {url}", unit="B", unit_scale=True) as bar,
    ):
        total = response.length
        while block := response.read(1 << 20):
            file.write(block)
            sha256.update(block)
            received += len(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())  # before it gets its name
    if total is not None and received != total:
        raise ConnectionError(f"the connection broke after {received} of {total} bytes")
    if digest is not None and not sha256.hexdigest().startswith(digest):
        place = "#sha256=" if len(digest) == 64 else "its name"
        raise ValueError(
            f"{url} does not have the hash in {place}: its SHA-256 starts with "
            f"{sha256.hexdigest()[: max(8, len(digest))]}, not {digest}; it was not kept"
        )


def _hash_in_name(name: str) -> str | None:
    """Return the start of the SHA-256 in a name such as name-0123abcd.pth, as in torch.hub."""
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return match[1] if match and not match[1].isdecimal() else None  # digits alone are a date
