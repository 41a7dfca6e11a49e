"""Downloads against a server on this machine: resumed, retried, checked, in place whole or not at all."""

from __future__ import annotations

import hashlib
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.data.base import Remote
from sslbench.data.datasets.acdc import ACDC
from sslbench.data.datasets.la import LA
from sslbench.data.datasets.phantom import Phantom
from sslbench.data.datasets.synapse import Synapse
from sslbench.data.files import download as module
from sslbench.data.files.download import can_download, download, fetch
from sslbench.data.prepare import prepare
from tests.helpers.folders import pack

CONTENT = bytes(range(256)) * 20_000  # 5.1 MB: several chunks
HASH = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server:
    """A web server with one file whose answers can be bent.

    Attributes:
        content, version: of the file; the version is its ETag, none where it is empty.
        ranges: whether it can send parts.
        script: what the next requests get instead of the file: a status, or how many bytes before it hangs up.
        requests: the `Range` headers that came, `None` for the whole.
        sent: bytes of content that went out.
    """

    def __init__(self):
        self.content, self.version, self.ranges = CONTENT, '"v1"', True
        self.script, self.requests, self.sent = [], [], 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/file.zip"

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        bent = self.script.pop(0) if self.script else None
        if isinstance(bent, str):
            handler.send_error(int(bent))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        if start and handler.headers.get("If-Range") not in (None, self.version):
            start = 0  # another version: all of it
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(self.content) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.version:
            handler.send_header("ETag", self.version)
        handler.end_headers()
        part = self.content[start:] if bent is None else self.content[start : start + bent]
        handler.wfile.write(part)
        self.sent += len(part)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def remote(server, hash=HASH):
    return Remote(url=server.url, file="file.zip", licence="none", hash=hash)


def get(server, folder, hash=HASH, **more):
    return fetch(remote(server, hash), folder, pause_s=0, **more)


def only(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_checked_and_told(server, tmp_path):
    told = []
    path = get(server, tmp_path / "a" / "b", transfer=lambda *what: told.append(what))
    assert path == tmp_path / "a" / "b" / "file.zip" and path.read_bytes() == CONTENT
    assert server.requests == [None]
    done = [done for _, done, _ in told]
    assert done == sorted(done) and told[-1] == ("file.zip", len(CONTENT), len(CONTENT)) and len(told) > 3
    assert only(path.parent) == ["file.zip", "file.zip.json"]


@pytest.mark.parametrize("hash", [HASH, None])
def test_what_is_there_is_not_asked_for_again(server, tmp_path, hash):
    path = get(server, tmp_path, hash)
    before = path.stat()
    assert get(server, tmp_path, hash) == path
    assert len(server.requests) == 1 and path.stat() == before
    path.write_bytes(CONTENT[:-1])  # damaged since
    get(server, tmp_path, hash)
    assert path.read_bytes() == CONTENT and len(server.requests) == 2


def test_a_server_that_fails_twice_is_asked_a_third_time(server, tmp_path):
    server.script = ["503", "500"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [None] * 3


def test_a_broken_connection_is_continued_where_it_broke(server, tmp_path):
    server.script = [3_000_000, 1_000_000]
    assert get(server, tmp_path).read_bytes() == CONTENT
    first, *rest = server.requests
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in rest]
    assert first is None and len(starts) == 2 and 0 < starts[0] <= starts[1]
    assert server.sent < 1.5 * len(CONTENT)


def test_a_later_call_continues_what_an_earlier_one_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 1)
    server.script = [3_000_000]
    with pytest.raises(SSLBenchError, match="cannot be downloaded") as raised:
        get(server, tmp_path)
    assert "continued" in raised.value.hint and "\n" not in str(raised.value)
    left = (tmp_path / "file.zip.part").stat().st_size
    assert 2_000_000 < left <= 3_000_000 and not (tmp_path / "file.zip").exists()
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1:] == [f"bytes={left}-"]
    assert only(tmp_path) == ["file.zip", "file.zip.json"]


def test_a_part_of_another_version_is_not_continued(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 1)
    server.script = [3_000_000]
    with pytest.raises(SSLBenchError):
        get(server, tmp_path, hash=None)
    server.content, server.version = CONTENT[::-1], '"v2"'
    assert get(server, tmp_path, hash=None).read_bytes() == CONTENT[::-1]


def test_without_version_and_checksum_nothing_is_pieced_together(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 1)
    server.version, server.script = "", [3_000_000]
    with pytest.raises(SSLBenchError):
        get(server, tmp_path, hash=None)
    server.content = CONTENT[::-1]
    assert get(server, tmp_path, hash=None).read_bytes() == CONTENT[::-1]
    assert server.requests == [None, None]


def test_a_server_that_cannot_send_parts_sends_all_again(server, tmp_path):
    server.ranges, server.script = False, [3_000_000]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_part_that_was_complete_is_taken(server, tmp_path, monkeypatch):
    """The last byte came, and the process was killed before the file was put in place."""
    monkeypatch.setattr(module, "TRIES", 1)
    server.script = [3_000_000]
    with pytest.raises(SSLBenchError):
        get(server, tmp_path)
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 2)
    server.script = [3_000_000, 1_000]
    with pytest.raises(SSLBenchError):
        get(server, tmp_path)
    (tmp_path / "file.zip.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(SSLBenchError, match="is not the expected file: its checksum is not sha256:0000") as raised:
        get(server, tmp_path, hash=f"sha256:{'0' * 64}")
    assert raised.value.exit_code == 1 and "\n" not in str(raised.value)
    assert only(tmp_path) == []


@pytest.mark.parametrize("status", ["404", "403", "401"])
def test_a_refusal_is_not_repeated(server, tmp_path, status):
    server.script = [status] * 9
    with pytest.raises(SSLBenchError, match=f"file.zip cannot be downloaded: the server says {status}"):
        get(server, tmp_path)
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_one_line(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 2)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(SSLBenchError, match=r"file\.zip cannot be downloaded: .*Connection refused") as raised:
        get(server, tmp_path)
    assert "\n" not in str(raised.value) and "HTTPConnection" not in str(raised.value)


def test_too_small_a_disk_is_told_first(server, tmp_path):
    huge = Remote(url=server.url, file="file.zip", licence="none", bytes=10**18)
    with pytest.raises(SSLBenchError, match=r"file\.zip needs 1000000000\.0 GB, but .* free"):
        fetch(huge, tmp_path)
    assert server.requests == []


# ----------------------------------------------------------------------------------------------- from a dataset's side


def test_a_downloaded_release_is_prepared(server, acdc_source, tmp_path, monkeypatch):
    archive = pack(tmp_path / "x.zip", acdc_source({"patient001": [1, 12]}, inside="ACDC/database/training"))
    server.content = archive.read_bytes()
    monkeypatch.setattr(ACDC, "remote", remote(server, hash=None))
    source = download(ACDC, tmp_path / "data")
    assert source == tmp_path / "data" / "acdc" / "downloads" / "file.zip"
    report = prepare("acdc", source, data_dir=tmp_path / "data", workers=1)
    assert (report.found, report.failed) == (2, {})
    assert download(ACDC, tmp_path / "data") == source and len(server.requests) == 1


def test_a_page_instead_of_the_archive_is_told(server, tmp_path, monkeypatch):
    server.content = b"<html>please log in</html>" * 1000
    monkeypatch.setattr(ACDC, "remote", remote(server, hash=None))
    with pytest.raises(SSLBenchError, match=r"file\.zip: cannot be unpacked, it is damaged or incomplete"):
        prepare("acdc", download(ACDC, tmp_path), data_dir=tmp_path, workers=1)


def test_what_needs_registration_is_refused_with_the_way(tmp_path):
    assert not can_download(LA) and not can_download(Phantom)
    with pytest.raises(UsageError, match="la cannot be downloaded") as raised:
        download(LA, tmp_path)
    assert "show dataset la" in raised.value.hint and not list(tmp_path.iterdir())


def test_every_dataset_says_the_way_to_its_files():
    for entry in registry.entries("dataset"):
        kind = entry.target
        if kind.generated_ids or not kind.__module__.startswith("sslbench"):
            assert not kind.access
            continue
        assert any(f"sslbench prepare {kind.name} --source" in step for step in kind.access), kind.name
        if kind.remote is not None:
            assert kind.remote.licence and not kind.remote.tried  # until somebody has tried it


def synapse_client(monkeypatch, get, login=lambda self, silent: None):
    """A stand-in for the package, with the calls that are made of it."""
    client = types.ModuleType("synapseclient")
    client.Synapse = type("Synapse", (), {"login": login, "get": get})
    client.__spec__ = types.SimpleNamespace(name="synapseclient")
    monkeypatch.setitem(sys.modules, "synapseclient", client)


def test_synapse_goes_through_the_users_client(synapse_source, tmp_path, monkeypatch):
    assert not can_download(Synapse)
    archive = pack(tmp_path / "RawData.zip", synapse_source(["0001"]))
    calls = []

    def get(self, id, downloadLocation, ifcollision):
        calls.append(id)
        (tmp_path / "data" / "synapse" / "downloads" / "RawData.zip").write_bytes(archive.read_bytes())
        return types.SimpleNamespace(path=f"{downloadLocation}/RawData.zip")

    synapse_client(monkeypatch, get)
    source = download(Synapse, tmp_path / "data")
    assert calls == ["syn3379050"] and zipfile.is_zipfile(source)
    assert prepare("synapse", source, data_dir=tmp_path / "data", workers=1).found == 1


def test_what_the_client_says_is_one_line(tmp_path, monkeypatch):
    def refuse(self, silent):
        raise RuntimeError("No credentials provided.\nlogin() takes a token.")

    synapse_client(monkeypatch, None, refuse)
    with pytest.raises(SSLBenchError, match="does not give syn3379050: No credentials provided") as raised:
        download(Synapse, tmp_path)
    assert "SYNAPSE_AUTH_TOKEN" in raised.value.hint and "\n" not in str(raised.value)
