"""Wheels and source archives say which commit they were built of: `sslbench/_commit.txt`, read by `core/version.py`."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "sslbench/_commit.txt"


class Commit(BuildHookInterface):
    """Adds the file; an editable install needs none, as git answers there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a build of either kind."""
        if version == "editable" or (Path(self.root) / NAME).is_file():  # the latter: built of a source archive
            return
        if commit := self._commit():
            self._folder = tempfile.TemporaryDirectory()  # until the build has ended, which copies it
            made = Path(self._folder.name) / "commit.txt"
            made.write_text(f"{commit}\n", encoding="utf-8")
            build_data["force_include"][str(made)] = NAME

    def _commit(self) -> str:
        try:
            head = self._git("rev-parse", "--short=12", "HEAD")
            return head + ("+changes" if self._git("status", "--porcelain", "--", "sslbench") else "")
        except (OSError, subprocess.SubprocessError):
            return ""

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()
