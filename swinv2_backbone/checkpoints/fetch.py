"""Published weights by name: fetched once, checked against the hash in their names, kept."""

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
from torch.hub import tqdm  # the real one where it is installed, else a plain counter

from swinv2_backbone.checkpoints.files import DIGESTS
from swinv2_backbone.variants import RELEASES, RELEASES_URL, variant_name

SCHEME = "swinv2://"
TIMEOUT = 60  # seconds without a byte


def fetch(source: str | os.PathLike) -> Path:
    """The local path of a source, downloaded into the cache if it is not there.

    Args:
        source: ``swinv2://NAME`` with a key of ``VARIANTS`` or a seed name; an address
            (https:// ...); or a path, which is returned as it is.

    Raises:
        ValueError: there are no published weights of that name, or the file fetched is not the
            one its name promises.
        ConnectionError: it cannot be fetched.
    """
    source = os.fspath(source)
    if source.startswith(SCHEME):
        return download(published_url(source.removeprefix(SCHEME)), cache_folder())
    if re.match(r"https?://", source):
        # A folder for each address, as many files in the world are called model.safetensors.
        place = hashlib.sha256(source.encode()).hexdigest()[:8]
        return download(source, cache_folder() / place)
    return Path(os.path.expanduser(source))


def check_source(source: str) -> None:
    """Raise early for a source that cannot be there: an unknown name or a missing file.

    An empty source, and schemes that are not ours, pass.

    Raises:
        ValueError: there are no published weights of that name.
        FileNotFoundError: there is no such file or folder.
    """
    if source.startswith(SCHEME):
        published_url(source.removeprefix(SCHEME))
    elif source and "://" not in source and not os.path.exists(os.path.expanduser(source)):
        raise FileNotFoundError(f"no file {source!r}")


def published_url(name: str) -> str:
    """Where the weights of a variant are published.

    Raises:
        ValueError: the variant is unknown, or nobody has published it.
    """
    variant = variant_name(name)
    if variant not in RELEASES:
        raise ValueError(f"no weights of {variant} are published; there are: {', '.join(RELEASES)}")
    return RELEASES_URL + RELEASES[variant].path


def cache_folder() -> Path:
    """``$SWINV2_CACHE``, or where torch.hub keeps its checkpoints."""
    own = os.environ.get("SWINV2_CACHE")
    return Path(own).expanduser() if own else Path(torch.hub.get_dir()) / "checkpoints"


def download(url: str, folder: Path) -> Path:
    """The file of an address in ``folder``, fetched if it is not there, with a progress bar.

    The file appears whole, and with the hash that its name carries, or not at all.

    Raises:
        ValueError: the file has another hash.
        ConnectionError: it cannot be fetched.
    """
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(url).path)).name
    if not name:
        raise ValueError(f"{url} names no file")
    path = folder / name
    if path.exists():
        return path
    # Of this call alone, as other processes and machines may be fetching the same file.
    partial = path.with_name(f"{name}.{uuid.uuid4().hex}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _transfer(url, partial, DIGESTS.get(name) or _hash_in_name(name))
        os.replace(partial, path)
    except urllib.error.HTTPError as error:
        raise ConnectionError(f"{url}: the server says {error.code} {error.reason}") from error
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
    if total is not None and received != total:
        raise ConnectionError(f"the connection broke after {received} of {total} bytes")
    if digest is not None and not sha256.hexdigest().startswith(digest):
        raise ValueError(
            f"{url} is not the file that its name says: its SHA-256 starts with "
            f"{sha256.hexdigest()[:8]}, not {digest}; it was not kept"
        )


def _hash_in_name(name: str) -> str | None:
    """The convention of torch.hub: name-0123abcd.pth carries the start of the SHA-256."""
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return match[1] if match and not match[1].isdecimal() else None  # digits alone: a date
