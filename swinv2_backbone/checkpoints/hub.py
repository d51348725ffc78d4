"""Repositories of the Hugging Face Hub, ``hf://org/name[@revision]``, by huggingface_hub.

Downloads are in that library's own cache (``$HF_HOME``) and usable offline afterward; its settings
apply (``HF_ENDPOINT``, ``HF_HUB_OFFLINE``), and so does its login.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote

from swinv2_backbone.checkpoints.files import IN_FOLDER

HUB = "hf://"
FORM = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/@]+))?(?:/([^@]+))?")
BESIDE = "config.json"  # has the windows of a publisher's model
LOGIN = "log in by `hf auth login`"


class HubSource(NamedTuple):
    """A repository of the Hub, or a file in it.

    Attributes:
        repository: "org/name".
        revision: a branch, tag or commit; None for the default branch.
        file: the path of a file in the repository; None for the usual names of weights.
    """

    repository: str
    revision: str | None
    file: str | None


def parse_hub_source(source: str) -> HubSource:
    """Parse ``hf://org/name[@revision][/path/of/file]``; a slash in a revision is written %2F.

    Raises:
        ValueError: the source has another form.
        ImportError: huggingface_hub is not installed.
    """
    found = FORM.fullmatch(source)
    if not found:
        raise ValueError(
            f"{source!r} must have the form hf://org/name, hf://org/name@revision or "
            "hf://org/name@revision/file"
        )
    _huggingface_hub()
    repository, revision, file = found.groups()
    return HubSource(repository, revision and unquote(revision), file)


def fetch_from_hub(source: str) -> Path:
    """Return the local file of the weights in a repository, with its config.json beside it.

    Args:
        source: see :func:`parse_hub_source`.

    Raises:
        ValueError: the source has another form.
        ImportError: huggingface_hub is not installed.
        FileNotFoundError: there is no such repository, revision or file.
        PermissionError: the repository's terms are not accepted.
        ConnectionError: the Hub cannot be reached, and the file is not in the cache.
    """
    place = parse_hub_source(source)
    names = (place.file,) if place.file else IN_FOLDER
    unreachable = _huggingface_hub().errors.LocalEntryNotFoundError
    with _errors_named(source):
        try:
            path = _weights(place, names)
        except unreachable:
            path = _weights(place, names, offline=True)
            if path is None:
                raise
    if path is None:
        raise FileNotFoundError(f"{source}: the repository has none of {', '.join(names)}")
    return path


def push_to_hub(
    folder: str | os.PathLike, destination: str, *, private: bool = False, overwrite: bool = False
) -> str:
    """Upload the files of a folder to a repository, in one commit; see ``save_pretrained``.

    Args:
        folder: the folder; its subfolders and hidden files stay behind.
        destination: ``hf://org/name[@branch]``; what does not exist is created.
        private: whether a new repository is private.
        overwrite: replace files that the repository has.

    Returns:
        The address of the commit.

    Raises:
        ValueError, ImportError: see :func:`parse_hub_source`.
        FileExistsError: the repository has some of the files, and ``overwrite`` is False.
        FileNotFoundError, PermissionError, ConnectionError: see :func:`fetch_from_hub`.
    """
    place, hub = parse_hub_source(destination), _huggingface_hub()
    if place.file:
        raise ValueError(
            f"{destination} names a file: give the repository, {HUB}{place.repository}"
        )
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    api = hub.HfApi()
    with _errors_named(destination):
        api.create_repo(place.repository, private=private, exist_ok=True)
        if place.revision:
            api.create_branch(place.repository, branch=place.revision, exist_ok=True)
        there = set(api.list_repo_files(place.repository, revision=place.revision))
        taken = [path.name for path in files if path.name in there]
        if taken and not overwrite:
            raise FileExistsError(
                f"{destination} has {', '.join(taken)} already: give overwrite=True to replace them"
            )
        commit = api.create_commit(
            place.repository,
            [hub.CommitOperationAdd(path.name, str(path)) for path in files],
            commit_message="Upload a Swin Transformer V2",
            revision=place.revision,
        )
    return commit.commit_url


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a source {HUB}... needs the package huggingface_hub: "
            "pip install 'swinv2_backbone[hub]'"
        ) from error
    return huggingface_hub


def _weights(place: HubSource, names: Sequence[str], offline: bool = False) -> Path | None:
    """Return the local path of the first of the files that the repository has, or None.

    The config.json comes first, so that weights in the cache have it beside them.
    """
    folder = names[0].rpartition("/")[0]
    _download(place, f"{folder}/{BESIDE}" if folder else BESIDE, offline)
    return next((path for name in names if (path := _download(place, name, offline))), None)


def _download(place: HubSource, name: str, offline: bool) -> Path | None:
    """Return the local path of a file, or None if the repository (the cache) does not have it."""
    hub = _huggingface_hub()
    try:
        path = hub.hf_hub_download(
            place.repository,
            name,
            revision=place.revision,
            library_name="swinv2_backbone",
            local_files_only=offline,
        )
    except hub.errors.EntryNotFoundError as error:
        if isinstance(error, hub.errors.LocalEntryNotFoundError) and not offline:
            raise  # the Hub cannot be reached
        return None
    return Path(path)


@contextmanager
def _errors_named(source: str) -> Iterator[None]:
    """Raise the errors of huggingface_hub as errors that name the source and the remedy."""
    errors = _huggingface_hub().errors
    try:
        yield
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{source}: accept the terms of the repository on its page, and {LOGIN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{source}: the repository has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{source}: there is no such repository, or it is private: {LOGIN}"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise ConnectionError(
            f"{source} is not in the cache, and the Hub cannot be reached: {error}"
        ) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise PermissionError(f"{source}: the Hub does not allow this: {LOGIN}") from error
        raise ConnectionError(f"{source}: {error}") from error
    except errors.HfHubHTTPError.__bases__[0] as error:  # of its client, httpx or requests
        raise ConnectionError(f"{source}: the Hub cannot be reached: {error}") from error
