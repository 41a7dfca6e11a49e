"""Bytes in: volumes, arrays, archives, downloads."""
