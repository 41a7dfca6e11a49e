"""Drawings of the command line's rows: for people, at any width; a file per drawing."""
