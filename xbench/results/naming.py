"""Names of things -> names of files."""

from __future__ import annotations


def file_name(*words: str) -> str:
    """A file name that every file system takes."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in "--".join(words))
    return kept.strip("-.")
