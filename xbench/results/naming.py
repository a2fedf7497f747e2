"""Shorten references to names, and make names of files."""

from __future__ import annotations


def bare_name(reference: str) -> str:
    """Return the name in a reference, without options and argument: "lime" of "lime:samples=200"."""
    return reference.partition(":")[0]


def file_name(*words: str) -> str:
    """Return a file name that every file system accepts."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in "--".join(words))
    return kept.strip("-.")


def calibration_name(dataset: str, model: str) -> str:
    """Return the name, without suffix, of the reliability diagram in the folder `models/` of a run."""
    return file_name(dataset, model, "calibration")
