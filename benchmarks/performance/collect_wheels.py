"""Collect the wheels that another machine lacks to run xbench, for its Python and platform.

    python benchmarks/performance/collect_wheels.py --python 3.12 --platform manylinux_2_28_x86_64 --into wheels
        [--have NAME,NAME,...|FILE] [--extra test] [--also NAME,NAME,...]

Dependencies are read from the distributions that are installed here, with markers evaluated for the other machine.
`--have` names the distributions of that machine, as a list or as a file with the output of its `pip list` or
`pip freeze`. Distributions that only those need are left out too. The checks of gpu.py need more than xbench itself:
`--also captum,saliency,scikit-learn,pytest`.

Each distribution is collected in the version that is installed here. If that version has no wheel for the other Python,
the newest one that has is used. A distribution that is only published as source is built here, and kept if its wheel
fits any machine. The script prints names, versions and sizes, missing wheels, and the command that installs everything
on the other machine without a network.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[2]
XBENCH = "xbench"
# Distributions with the same modules under another name.
ALIKE = {"opencv-python": "opencv-python-headless"}
_PLATFORM = r"(manylinux|musllinux|macosx|win)\w*"
_OLDEST, _LEGACY = 5, {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_SYSTEMS = {"macosx": ("darwin", "Darwin", "posix"), "win": ("win32", "Windows", "nt")}
_LINUX = ("linux", "Linux", "posix")

Requires = Callable[[str], Iterable[str]]


def installed(name: str) -> list[str]:
    """Return the requirements of a distribution that is installed here, or an empty list if it is not."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def environment(python: str, platform: str) -> dict[str, str]:
    """Return the environment in which markers are evaluated on the other machine.

    Args:
        python: Version of Python, such as "3.12".
        platform: Platform as in the name of a wheel: "manylinux_2_28_x86_64", "win_amd64", "macosx_11_0_arm64".
    """
    system = next((names for start, names in _SYSTEMS.items() if platform.startswith(start)), _LINUX)
    machine = re.sub(r"^(manylinux|musllinux|macosx)_\d+_\d+_|^(manylinux\d+|linux|win)_", "", platform)
    here: Mapping[str, Any] = default_environment()
    return {key: str(value) for key, value in here.items()} | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
        "sys_platform": system[0],
        "platform_system": system[1],
        "os_name": system[2],
        "platform_machine": machine,
    }


def closure(
    wanted: Iterable[str], have: Iterable[str], requires: Requires, target: Mapping[str, str]
) -> dict[str, list[Requirement]]:
    """Return the distributions that the other machine lacks: canonical name -> the requirements that ask for it.

    Args:
        wanted: Requirements, such as "xbench[test]" or "captum>=0.9".
        have: Names of distributions that the machine has.
        requires: Function from a name to its requirements.
        target: Environment of the markers.
    """
    there = {canonicalize_name(name) for name in have}
    there |= {name for name, alike in ALIKE.items() if alike in there}
    found: dict[str, list[Requirement]] = {}
    walked: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in there:
            continue
        found.setdefault(name, []).append(one)
        for extra in {"", *one.extras}:
            if (name, extra) in walked:
                continue
            walked.add((name, extra))
            needed = [Requirement(text) for text in requires(name)]
            seen = {**target, "extra": extra}
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate(seen)]
    return found


def names_in(have: str) -> list[str]:
    """Read names from a list with commas, or from a file with such a list or the output of `pip list` or `pip freeze`.

    Raises:
        SystemExit: The value looks like a path, but there is no such file.
    """
    text = have
    if "," not in have and ("/" in have or have.endswith(".txt")) and not Path(have).is_file():
        sys.exit(f"no such file: {have}")
    if "," not in have and Path(have).is_file():  # a long list would be refused as a path
        text = Path(have).read_text()
    lines = [line.strip() for line in text.splitlines()]
    parts = [part.strip() for line in lines if not line.startswith(("-", "#")) for part in line.split(",")]
    words = [re.match(r"[A-Za-z0-9][\w.-]*", part) for part in parts]
    return [word[0] for word in words if word and word[0] != "Package"]


def tags(platform: str) -> list[str]:
    """Return the platform, and the older platforms whose wheels it also accepts."""
    new = re.fullmatch(r"manylinux_2_(\d+)_(\w+)", platform)
    if not new:
        return [platform]
    found = []
    for minor in range(int(new[1]), _OLDEST - 1, -1):
        found += [f"manylinux_2_{minor}_{new[2]}", *([f"{_LEGACY[minor]}_{new[2]}"] if minor in _LEGACY else [])]
    return found


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    """Run pip and return its exit code and output."""
    return subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)


def fetch(name: str, asked: list[Requirement], python: str, platform: str, into: Path) -> Path | None:
    """Download or build the wheel of a distribution. Return None if there is none for the other machine."""
    there = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    there += [word for tag in tags(platform) for word in ("--platform", tag)]
    limits = ",".join(sorted({str(one.specifier) for one in asked if str(one.specifier)}))
    try:
        version = f"=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        version = limits
    for wanted in dict.fromkeys((version, limits)):
        if pip("download", "--quiet", *there, "--dest", str(into), name + wanted).returncode == 0:
            return wheel_of(name, into)
    for wanted in dict.fromkeys((version, limits)):
        if pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(into), name + wanted).returncode == 0:
            return _of_any_machine(wheel_of(name, into))
    return None


def build(into: Path) -> Path:
    """Build the wheel of xbench itself from these sources."""
    done = pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(into), str(ROOT))
    made = wheel_of(XBENCH, into)
    if done.returncode or made is None:
        sys.exit(f"xbench's own wheel could not be built:\n{done.stderr}")
    return made


def wheel_of(name: str, folder: Path) -> Path | None:
    """Return the newest wheel of a distribution in a folder, or None."""
    found = [path for path in folder.glob("*.whl") if parse_wheel_filename(path.name)[0] == name]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _of_any_machine(wheel: Path | None) -> Path | None:
    if wheel is not None and not wheel.name.endswith("-none-any.whl"):
        wheel.unlink()
        return None
    return wheel


def main() -> int:
    """Collect the wheels and print a table. Return 0 if none is lacking."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", required=True, help="version on the other machine, such as 3.12")
    parser.add_argument("--platform", required=True, help="as in the name of a wheel: manylinux_2_28_x86_64")
    parser.add_argument("--have", default="", help="its distributions, with commas; or a file of pip list or freeze")
    parser.add_argument("--extra", action="append", default=[], help="extra of xbench; may be repeated")
    parser.add_argument("--also", default="", help="further distributions, with commas")
    parser.add_argument("--into", type=Path, required=True, help="new or empty folder for the wheels")
    given = parser.parse_args()
    if not re.fullmatch(r"3\.\d+", given.python):
        parser.error(f"--python {given.python} is no version: 3.12, say")
    if not re.fullmatch(_PLATFORM, given.platform):
        parser.error(f"--platform {given.platform} is not the end of a wheel's name: manylinux_2_28_x86_64, say")
    names_in(given.have)  # find a wrong file before any folder is made
    given.into.mkdir(parents=True, exist_ok=True)
    if any(given.into.iterdir()):
        parser.error(f"{given.into} is not empty: what lies there would be carried too")
    extras = f"[{','.join(given.extra)}]" if given.extra else ""
    wanted = [XBENCH + extras, *names_in(given.also)]
    needed = closure(wanted, names_in(given.have), installed, environment(given.python, given.platform))
    needed.pop(XBENCH, None)
    print(f"{len(needed)} to collect: {', '.join(sorted(needed))}", flush=True)
    wheels, lacking = [build(given.into)], []
    for name in sorted(needed):
        print(f"  {name}", flush=True)
        wheel = fetch(name, needed[name], given.python, given.platform, given.into)
        if wheel is None:
            lacking.append(name)
        else:
            wheels.append(wheel)
    print_table(wheels)
    if lacking:
        print(f"no wheel for Python {given.python} on {given.platform}: {', '.join(lacking)}")
    print("There, without a network:")
    print(f"  python -m pip install --no-index --no-deps --target xbench-libraries {given.into.name}/*.whl")
    print("  PYTHONPATH=$PWD/xbench-libraries python benchmarks/performance/gpu.py")
    return 1 if lacking else 0


def print_table(wheels: Iterable[Path]) -> None:
    """Print names, versions and sizes, the largest first, and the total."""
    sizes = {wheel: wheel.stat().st_size / 1e6 for wheel in wheels}
    for wheel in sorted(sizes, key=lambda one: -sizes[one]):
        name, version, *_ = parse_wheel_filename(wheel.name)
        print(f"{name:<32}{version!s:<16}{sizes[wheel]:>8.2f} MB")
    print(f"{f'{len(sizes)} wheels':<48}{sum(sizes.values()):>8.2f} MB")


if __name__ == "__main__":
    sys.exit(main())
