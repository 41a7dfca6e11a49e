"""Records in one file: a tidy CSV, the same compressed, Parquet, or a bundle; with its manifest, where there is one.

    records.csv, records.csv.gz     columns `collect.COLUMNS`; the manifest is `<name>.manifest.json` beside it, or the
                                    `manifest.json` of its folder
    records.parquet                 the same columns, typed; the manifest is in its metadata, under `sslbench.manifest`
    bundle.zip                      `cases.csv.gz` and `manifest.json` among others

Written files have no times in them: the same records give the same bytes.
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.core.errors import UsageError
from sslbench.core.files import atomic_path, read_json
from sslbench.runs.records import one_line

if TYPE_CHECKING:
    import pandas as pd

CASES, MANIFEST = "cases.csv.gz", "manifest.json"  # of a bundle, and of a folder with everything
BUNDLE = ".zip"
PARQUET = ".parquet"
MANIFEST_FORMAT = 2  # of manifests; 1 was a list of runs
RECORD_ENDINGS = (".csv", ".csv.gz", PARQUET, BUNDLE)
_PROVENANCE = "sslbench"  # of a Parquet file: its version; behind a point `commit` and `manifest`
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def read_archive(path: Path) -> tuple[str, Mapping[str, Any] | None]:
    """The text of a file's records, and its manifest; None: it has none.

    Raises:
        ValueError: it is missing or cannot be read; the message says it of the file.
        UsageError: it is a Parquet file, and pyarrow is not installed.
    """
    try:
        if path.name.endswith(PARQUET):
            frame = _parquet().read_table(path).to_pandas()
            return frame.to_csv(index=False, lineterminator="\n"), manifest_beside(path)
        if path.name.endswith(BUNDLE):
            with zipfile.ZipFile(path) as bundle:
                manifest = json.loads(bundle.read(MANIFEST))
                if manifest["manifest"] != MANIFEST_FORMAT:
                    raise ValueError(
                        f"its manifest has format {manifest['manifest']}, and this code reads {MANIFEST_FORMAT}"
                    )
                return _unpacked(bundle.read(CASES)), manifest
        content = path.read_bytes()
        text = _unpacked(content) if path.name.endswith(".gz") else content.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError("is missing") from error
    except KeyError as error:
        raise ValueError(f"is no bundle of sslbench: it lacks {CASES} or {MANIFEST}") from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"cannot be read: {one_line(error)}") from error
    return text, manifest_beside(path)


def _unpacked(content: bytes) -> str:
    return gzip.decompress(content).decode("utf-8-sig")


def manifest_beside(path: Path) -> Mapping[str, Any] | None:
    """The manifest of a file: in it (Parquet), its own, or that of its folder; None where there is none of these, or
    none of this format."""
    if path.name.endswith(PARQUET):
        held = _parquet().read_schema(path).metadata or {}
        places: list[Any] = [json.loads(held.get(f"{_PROVENANCE}.manifest".encode(), b"null"))]
    else:
        places = [read_json(beside) for beside in (own_manifest(path), path.with_name(MANIFEST))]
    for found in places:
        if isinstance(found, dict) and found.get("manifest") == MANIFEST_FORMAT:
            return found
    return None


def own_manifest(path: Path) -> Path:
    """Where the manifest of a file lies that has one of its own."""
    return path.with_name(f"{path.name}.manifest.json")


def write_compressible(path: Path, text: str) -> None:
    """Write a text, compressed where the name ends in `.gz`, whole or not at all."""
    content = text.encode()
    with atomic_path(path) as aside:
        aside.write_bytes(packed(content) if path.name.endswith(".gz") else content)


def write_parquet(path: Path, records: pd.DataFrame, manifest: Mapping[str, Any]) -> None:
    """Write records as Parquet, whole or not at all, with what they are of in its metadata: `sslbench` (version),
    `sslbench.commit`, and `sslbench.manifest` (JSON: digests and hashes of all runs). pandas reads the same frame back.

    Args:
        path: to write.
        records: columns `collect.COLUMNS`.
        manifest: of the report that they are from.

    Raises:
        UsageError: pyarrow is not installed.
    """
    parquet = _parquet()
    import pyarrow as pa

    table = pa.Table.from_pandas(records, preserve_index=False)
    told = {"": manifest["sslbench"], ".commit": manifest["code"], ".manifest": json.dumps(manifest)}
    held = {f"{_PROVENANCE}{part}": text for part, text in told.items()}
    with atomic_path(path) as aside:
        parquet.write_table(table.replace_schema_metadata({**table.schema.metadata, **held}), aside)


def _parquet() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError("Parquet needs pyarrow, which is not installed", "pip install 'sslbench[parquet]'") from error
    return parquet


def packed(content: bytes) -> bytes:
    """The content as gzip, without a time or a name in it."""
    return gzip.compress(content, mtime=0)


def write_bundle(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip, whole or not at all: members in the order of their names, with one date and mode.

    Args:
        members: names, with `/` between folders, and contents.
    """
    with atomic_path(path) as aside, zipfile.ZipFile(aside, "w") as bundle:
        for name, content in sorted(members):
            member = zipfile.ZipInfo(name, _FIRST_DATE)
            member.create_system, member.external_attr = 3, 0o100644 << 16  # as on Unix, wherever it is written
            member.compress_type = zipfile.ZIP_STORED if name.endswith(".gz") else zipfile.ZIP_DEFLATED
            bundle.writestr(member, content)
