"""What is told of a machine."""

import platform

import pytest

from xbench.runtime.environment import environment


@pytest.mark.parametrize(
    ("release", "whole", "told"),
    [
        (
            "6.18.4-clinic-gpu07-x86",
            "Linux-6.18.4-clinic-gpu07-x86-x86_64-with-glibc2.36",
            "Linux-6.18.4-x86_64-with-glibc2.36",
        ),
        ("23.1.0", "macOS-14.1-arm64-arm-64bit", "macOS-14.1-arm64-arm-64bit"),
        ("10", "Windows-10-10.0.19045-SP0", "Windows-10-10.0.19045-SP0"),
        ("local", "Linux-local-x86_64", "Linux--x86_64"),
    ],
)
def test_a_published_header_does_not_tell_an_institutions_kernel(
    monkeypatch: pytest.MonkeyPatch, release: str, whole: str, told: str
) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(platform, "platform", lambda: whole)
    assert environment("cpu")["platform"] == told
