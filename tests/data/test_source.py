"""Archives: unpacked once, whole or not at all, and never outside of their folder."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import time
import zipfile

import pytest

from sslbench.core.errors import DataError, SSLBenchError, UsageError
from sslbench.data.files import archives as module
from sslbench.data.files.archives import unpack, unpacked_folder
from sslbench.data.prepare import prepare
from sslbench.data.store import Store
from tests.helpers.folders import pack, snapshot

TWO = {"patient001": [1, 12], "patient090": [4, 11]}
FORMATS = (".zip", ".tar", ".tar.gz", ".tgz")


def tar_of(archive, *members, mode="w"):
    """A tar of (name, content or TarInfo) pairs."""
    with tarfile.open(archive, mode) as file:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            file.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return archive


def zip_of(archive, *members):
    """A zip of (name or ZipInfo, content) pairs."""
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return archive


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (0o120777 << 16)
    return info, target


def unpacked(archive, cache):
    folder = unpacked_folder(archive, cache)
    return unpack(archive, folder), folder


# -------------------------------------------------------------------------------------------------------- preparation


@pytest.mark.parametrize("ending", FORMATS)
def test_an_archive_is_prepared_as_its_folder_is(acdc_source, tmp_path, ending):
    folder = acdc_source(TWO, inside="database/training")
    archive = pack(tmp_path / f"ACDC{ending}", folder, "ACDC")
    reports = [
        prepare("acdc", given, data_dir=tmp_path / str(n), workers=1) for n, given in enumerate((folder, archive))
    ]
    stores = [Store.open(tmp_path / str(n), "acdc", "ssl4mis") for n in range(2)]
    assert reports[1].found == 4 and stores[0].fingerprint == stores[1].fingerprint
    (there,) = (path for path in (tmp_path / "1" / "acdc" / "source").iterdir() if not path.name.startswith("."))
    assert reports[1].notes == (f"unpacked to {there}, which may be deleted once all cases are prepared",)
    before = snapshot(tmp_path / "1")
    again = prepare("acdc", archive, data_dir=tmp_path / "1", workers=1)
    assert (again.written, again.unchanged) == (0, 4)
    assert snapshot(tmp_path / "1") == before


def test_what_is_unpacked_again_counts_as_unchanged(acdc_source, tmp_path):
    archive = pack(tmp_path / "ACDC.zip", acdc_source(TWO))
    prepare("acdc", archive, data_dir=tmp_path / "data", workers=1)
    shutil.rmtree(tmp_path / "data" / "acdc" / "source")
    os.utime(archive)  # a copy of the archive is the same archive
    assert prepare("acdc", archive, data_dir=tmp_path / "data", workers=1).unchanged == 4


def test_archives_inside_of_an_archive_are_unpacked_too(acdc_source, tmp_path):
    folder = acdc_source(TWO)
    (tmp_path / "outer").mkdir()
    pack(tmp_path / "outer" / "training.zip", folder)
    shutil.rmtree(folder)
    pack(tmp_path / "outer" / "more.tar.gz", acdc_source({"patient101": [1]}, inside="testing"))
    report = prepare("acdc", pack(tmp_path / "ACDC.zip", tmp_path / "outer"), data_dir=tmp_path / "data", workers=1)
    assert (report.found, report.failed) == (4, {})
    assert not list((tmp_path / "data").rglob(".unpacking-*"))


def test_synapse_is_prepared_from_its_official_archive(synapse_source, tmp_path):
    source = synapse_source(["0001", "0021"], folders=("Training/img", "Training/label"))
    archive = pack(tmp_path / "RawData.zip", source, "RawData")
    report = prepare("synapse", archive, data_dir=tmp_path / "data", workers=1)
    assert (report.found, report.failed) == (2, {})


def test_the_archive_of_something_else_leaves_nothing(tmp_path):
    archive = zip_of(tmp_path / "other.zip", ("readme.txt", "hello"))
    with pytest.raises(UsageError, match="nothing of acdc is in"):
        prepare("acdc", archive, data_dir=tmp_path / "data", workers=1)
    assert not [path for path in (tmp_path / "data").rglob("*") if not path.name.endswith(".lock") and path.is_file()]


def test_a_folder_that_holds_the_archive_only_is_told_so(acdc_source, tmp_path):
    (tmp_path / "downloads").mkdir()
    archive = pack(tmp_path / "downloads" / "ACDC.zip", acdc_source(TWO))
    with pytest.raises(UsageError, match="nothing of acdc") as raised:
        prepare("acdc", archive.parent, data_dir=tmp_path / "data", workers=1)
    assert raised.value.hint == f"it holds an archive, so perhaps --source {archive}"


def test_progress_names_each_file(acdc_source, tmp_path):
    said = []
    archive = pack(tmp_path / "ACDC.tar", acdc_source({"patient001": [1]}), "ACDC")
    prepare("acdc", archive, data_dir=tmp_path, workers=1, progress=lambda id, state: said.append((id, state)))
    stem = "ACDC/training/patient001/patient001_frame01"
    assert sorted(said[:2]) == [(f"{stem}.nii.gz", "unpacked"), (f"{stem}_gt.nii.gz", "unpacked")]


# ------------------------------------------------------------------------------------------------------------ details


@pytest.mark.parametrize("ending", FORMATS)
def test_members_keep_their_content_and_times(tmp_path, ending):
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_bytes(os.urandom(3_000_000))
    (folder / "empty").write_bytes(b"")
    changed = time.mktime((2019, 3, 31, 4, 30, 22, 0, 0, -1))
    for path in folder.rglob("*"):
        os.utime(path, (changed, changed))
    now, there = unpacked(pack(tmp_path / f"x{ending}", folder), tmp_path / "cache")
    assert now
    for name in ("a/b/file", "empty"):
        assert (there / name).read_bytes() == (folder / name).read_bytes()
        assert (there / name).stat().st_mtime == changed


def test_a_changed_archive_of_the_same_name_is_another(tmp_path):
    archive = tmp_path / "x.zip"
    folders = {unpacked(zip_of(archive, ("a", text)), tmp_path / "cache")[1] for text in ("one", "two", "three")}
    assert sorted((folder / "a").read_text() for folder in folders) == ["one", "three", "two"]


def test_links_inside_become_files(tmp_path):
    members = (("a/data", b"content"), special("a/soft", tarfile.SYMTYPE, "data"))
    members += (special("hard", tarfile.LNKTYPE, "a/data"), special("b/up", tarfile.SYMTYPE, "../a/data"))
    _, folder = unpacked(tar_of(tmp_path / "x.tar.gz", *members, mode="w:gz"), tmp_path / "cache")
    for name in ("a/soft", "hard", "b/up"):
        assert (folder / name).read_bytes() == b"content" and not (folder / name).is_symlink()
    _, folder = unpacked(zip_of(tmp_path / "x.zip", ("a/data", "text"), zip_link("soft", "a/data")), tmp_path / "cache")
    assert (folder / "soft").read_text() == "text" and not (folder / "soft").is_symlink()


# ------------------------------------------------------------------------------------------------------------- refusals


TRAVERSALS = {
    "absolute": "/tmp/evil",
    "up": "../evil",
    "up later": "a/../../evil",
    "up and back": "a/../b",
    "backslash": "a\\..\\..\\evil",
    "drive": "C:/evil",
}


@pytest.mark.parametrize("name", TRAVERSALS.values(), ids=TRAVERSALS)
@pytest.mark.parametrize("kind", ["zip", "tar", "nested"])
def test_a_member_that_would_leave_the_folder_is_refused_before_anything_is_written(tmp_path, name, kind):
    members = (("good", b"good"), (name, b"evil"))
    archive = zip_of(tmp_path / "x.zip", *members) if kind == "zip" else tar_of(tmp_path / "x.tar", *members)
    if kind == "nested":
        archive = zip_of(tmp_path / "outer.zip", ("deep/x.tar", archive.read_bytes()))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"x\.(zip|tar): the member '.*evil|b' would be written outside") as raised:
        unpacked(archive, tmp_path / "cache")
    assert "\n" not in str(raised.value)
    left = set(tmp_path.rglob("*")) - before - {tmp_path / "cache"}
    assert all(path.name.endswith(".lock") for path in left)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "a/../../outside", "C:\\x"])
@pytest.mark.parametrize("kind", ["soft", "hard", "zip"])
def test_a_link_that_leads_out_is_refused(tmp_path, target, kind):
    if kind == "zip":
        archive = zip_of(tmp_path / "x.zip", zip_link("a/link", target))
    else:
        archive = tar_of(tmp_path / "x.tar", special("a/link", {"soft": b"2", "hard": b"1"}[kind], target))
    with pytest.raises(UsageError, match=r"a/link is a link to .*, (outside of the archive|which is no file)"):
        unpacked(archive, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("[!.]*"))


def test_a_file_cannot_be_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    # Every step stays inside by its letters: a/up is the root, and a/up/.. would be its parent.
    members = (special("a/up", tarfile.SYMTYPE, ".."), special("l", tarfile.SYMTYPE, "a/up/../outside"))
    with pytest.raises(UsageError, match="a/up is a link to"):
        unpacked(tar_of(tmp_path / "x.tar", *members, ("l/evil", b"evil")), tmp_path / "cache")
    assert not list(outside.iterdir())


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_neither_file_nor_folder_is_refused(tmp_path, kind):
    with pytest.raises(UsageError, match="dev is neither a file nor a folder"):
        unpacked(tar_of(tmp_path / "x.tar", special("dev", kind)), tmp_path / "cache")


def test_a_password_is_told(tmp_path):
    archive = zip_of(tmp_path / "x.zip", ("a", "secret"))
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag of an encrypted member
    archive.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.zip: a has a password"):
        unpacked(archive, tmp_path / "cache")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_truncated_archive_is_one_line_and_leaves_nothing(tmp_path, ending):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(200_000))
    archive = pack(tmp_path / f"x{ending}", folder)
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"cannot be unpacked, it is damaged or incomplete: .") as raised:
        unpacked(archive, tmp_path / "cache")
    assert "\n" not in str(raised.value) and str(archive) in str(raised.value)
    assert not list((tmp_path / "cache").glob("[!.]*")) and not list((tmp_path / "cache").glob(".unpacking*"))


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_no_archive_is_one_line(tmp_path, ending):
    archive = tmp_path / f"x{ending}"
    for content in (b"", b"<html>please log in</html>" * 100):
        archive.write_bytes(content)
        with pytest.raises(DataError, match="damaged or incomplete"):
            unpacked(archive, tmp_path / "cache")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_a_changed_bit_is_found(tmp_path, ending):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(100_000))
    archive = pack(tmp_path / f"x{ending}", folder)
    content = bytearray(archive.read_bytes())
    content[50_000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="damaged or incomplete"):
        unpacked(archive, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("[!.]*"))


def test_more_bytes_than_a_header_states_are_not_written(tmp_path):
    """A zip whose member inflates to far more than the size that was held against the disk."""
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", bytes(5_000_000))
    content = archive.read_bytes()
    assert content.count(struct.pack("<I", 5_000_000)) == 2
    archive.write_bytes(content.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 1000)))
    with pytest.raises(DataError, match="damaged"):
        unpacked(archive, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("[!.]*"))


def test_the_same_name_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match="a is in it twice"):
        unpacked(tar_of(tmp_path / "x.tar", ("a", b"1"), ("./a", b"2")), tmp_path / "cache")


def test_too_small_a_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    archive = zip_of(tmp_path / "x.zip", ("a", "1234"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=module._SPARE + 3))
    with pytest.raises(SSLBenchError, match=r"x\.zip needs 0\.0 GB, but .* has 0\.1 GB free") as raised:
        unpacked(archive, tmp_path / "cache")
    assert raised.value.exit_code == 1 and "--data-dir" in raised.value.hint
    assert not list((tmp_path / "cache").glob("[!.]*"))


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    archive = zip_of(tmp_path / "x.zip", ("a", "1"), ("b", "2"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "utime", full)
    with pytest.raises(SSLBenchError, match=r"cannot be unpacked to .*: No space left on device"):
        unpacked(archive, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")]


def test_an_interrupted_unpacking_is_redone(tmp_path):
    archive = zip_of(tmp_path / "x.zip", ("a", "1"), ("b", "2"))
    folder = unpacked_folder(archive, tmp_path / "cache")

    def stop(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, folder, stop)
    assert not folder.exists()
    left = folder.with_name(f".unpacking-{folder.name}")  # as kill -9 would leave it
    left.mkdir()
    (left / "a").write_text("half")
    assert unpack(archive, folder) and not unpack(archive, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
    assert (folder / "a").read_text() == "1" and not left.exists()
