"""Official files over the network: downloaded where everybody may, else an account of how to get them.

`pooch` holds a file against its checksum and puts it in place; the transfer is ours, as a part that is there is
continued, not fetched again: after a break within the call, and by a later call. Nothing is redistributed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.files import read_json, write_json
from sslbench.data.base import Dataset, Remote
from sslbench.data.files.archives import check_space

Transfer = Callable[[str, int, int | None], None]

TRIES = 5
PAUSE_S = 1.0  # before the second try; doubled before each further one
_TIMEOUT_S = (20, 60)  # to connect, and between two chunks
_CHUNK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # what a server says that may answer the next time


def can_download(kind: type[Dataset]) -> bool:
    """Tell whether `download` can get a dataset here: it is open, or the user has its site's client installed."""
    from importlib.util import find_spec

    return kind.remote is not None or (kind.synapse_id is not None and find_spec("synapseclient") is not None)


def download(kind: type[Dataset], data_dir: Path, transfer: Transfer = lambda file, done, total: None) -> Path:
    """Download the official archive to `<data_dir>/<dataset>/downloads`; one that is there complete is taken as it is.

    Args:
        kind: the dataset.
        data_dir: folder of prepared datasets.
        transfer: told the file's name, the bytes that are there, and how many there will be where the server says.

    Returns:
        The archive, for `prepare`.

    Raises:
        UsageError: it cannot be downloaded without registration.
        SSLBenchError: the network, the server or the disk fails, or the file is not the expected one.
    """
    folder = data_dir / kind.name / "downloads"
    if kind.remote is not None:
        return fetch(kind.remote, folder, transfer)
    if kind.synapse_id is None or not can_download(kind):
        why = "sslbench can only download what needs no registration"
        raise UsageError(f"{kind.name} cannot be downloaded: {why}", f"sslbench show dataset {kind.name} says the way")
    return _through_synapse(kind.synapse_id, folder)


def fetch(
    remote: Remote, folder: Path, transfer: Transfer = lambda file, done, total: None, pause_s: float = PAUSE_S
) -> Path:
    """Download one file, unless it is there; `pause_s` as `PAUSE_S`. Otherwise as `download`."""
    import pooch
    import requests

    path, record = folder / remote.file, folder / f"{remote.file}.json"
    if path.exists() and record.exists():
        if read_json(record) == _record(remote, path):
            return path
        path.unlink()  # changed since: where no checksum is known, nothing else would show it
    folder.mkdir(parents=True, exist_ok=True)
    if remote.bytes is not None and not path.exists():
        check_space(remote.file, folder, remote.bytes)
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = _Resuming(remote, folder / f"{remote.file}.part", transfer, pause_s)
    try:
        pooch.retrieve(remote.url, remote.hash, fname=remote.file, path=folder, downloader=downloader)
    except requests.RequestException as error:
        raise SSLBenchError(
            f"{remote.url} cannot be downloaded: {_reason(error)}",
            "run the same command again: what is there is kept and continued",
        ) from error
    except ValueError as error:
        raise SSLBenchError(
            f"{remote.url} is not the expected file: its checksum is not {remote.hash}",
            "it was deleted; try again, or download it in a browser and name it with --source",
        ) from error
    write_json(record, _record(remote, path))
    return path


def _record(remote: Remote, path: Path) -> dict[str, Any]:
    """Return what shows that a file is the one whose checksum was compared: to read it all again takes minutes."""
    found = path.stat()
    return {"url": remote.url, "hash": remote.hash, "bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


@dataclass
class _Resuming:
    """A downloader for pooch that continues `part`, the beginning of the file.

    Beside it, `<part>.json` has what the server said about the file's version. A part of another version, or of one
    that no version tells apart while no checksum would show the mixture, is fetched anew.
    """

    remote: Remote
    part: Path
    transfer: Transfer
    pause_s: float

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests

        for attempt in range(1, TRIES + 1):
            try:
                self._continue()
                break
            except requests.RequestException as error:
                refused = error.response is not None and error.response.status_code not in _PASSING
                if refused or attempt == TRIES:
                    raise
                time.sleep(self.pause_s * 2 ** (attempt - 1))
        self.part.replace(output_file)
        self._version_file.unlink(missing_ok=True)

    @property
    def _version_file(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _continue(self) -> None:
        """Fetch what is missing, in one request."""
        import requests

        version = self._part_version()
        have = self.part.stat().st_size if version is not None else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if version:
                headers["If-Range"] = version
        with requests.get(self.remote.url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == 416 and have:
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return  # it was complete
                self.part.unlink()
                raise requests.ConnectionError("the server has no such part")
            response.raise_for_status()
            continued = response.status_code == 206
            if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                self.part.unlink()
                raise requests.ConnectionError("the server sent another part than it was asked for")
            if not continued:  # from the start: it cannot do parts, or the file has changed
                have = 0
                write_json(self._version_file, self._version(response.headers))
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            with self.part.open("ab" if continued else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    have += file.write(chunk)
                    self.transfer(self.remote.file, have, total)
        if total is not None and have < total:
            raise requests.ConnectionError(f"the connection ended after {have} of {total} bytes")

    def _part_version(self) -> str | None:
        """The version of the part that is there, empty where only the checksum can tell; None: start anew."""
        record = read_json(self._version_file)
        if not self.part.exists() or not isinstance(record, dict) or record.get("url") != self.remote.url:
            return None
        version = str(record.get("version") or "")
        return version if version or self.remote.hash is not None else None

    def _version(self, headers: Any) -> dict[str, str]:
        tag = headers.get("ETag", "")
        strong = "" if tag.startswith("W/") else tag
        return {"url": self.remote.url, "version": strong or headers.get("Last-Modified", "")}


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server says {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    # What urllib3 wraps begins with the connection's address, which the user has just read.
    cause = getattr(error.args[0], "reason", None) if error.args else None
    said = str(cause).partition(": ")[2] if cause else str(error)
    return (said.splitlines() or [type(error).__name__])[0]


def _through_synapse(id: str, folder: Path) -> Path:
    """A file of synapse.org, through the user's own client and token (untried: no account was at hand)."""
    import synapseclient

    folder.mkdir(parents=True, exist_ok=True)
    try:
        client = synapseclient.Synapse()
        client.login(silent=True)
        entity = client.get(id, downloadLocation=str(folder), ifcollision="keep.local")
    except Exception as error:  # the client raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SSLBenchError(
            f"synapse.org does not give {id}: {reason}",
            "set SYNAPSE_AUTH_TOKEN to a token with the scopes view and download, and join the challenge first",
        ) from error
    if not getattr(entity, "path", None):
        raise SSLBenchError(f"synapse.org does not give {id}", "join the challenge and accept its conditions first")
    return Path(entity.path)
