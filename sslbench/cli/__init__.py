"""The command line: parses, calls, prints."""

from sslbench.cli.app import app, main

__all__ = ["app", "main"]
