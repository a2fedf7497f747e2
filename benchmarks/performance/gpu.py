"""Run everything that must be measured on a GPU, with one command, in under eight minutes and without a network.

    python benchmarks/performance/gpu.py [--out gpu-results] [--minutes 8] [--device cuda]
    python benchmarks/performance/gpu.py --rehearse [--device cpu]

The checks are listed below, the most important first. Each check runs in its own process and is killed at its limit, so
that it can't take another one with it. After each check, `results.json` and `results.md` are written anew to the folder
of results, so they hold all results so far when the time is over. The exit code is 0 if every check ran and passed.

`--rehearse` runs all checks on a machine without a GPU, at about a tenth of the size. This only shows that they run: it
does not matter whether they reach the limits. The exit code is 0 if nothing failed.

The script needs the xbench wheel with its dependencies, and this folder. Some checks also need captum, scikit-learn,
saliency, and pytest with tests/gpu beside this folder's parent. They need nothing else of xbench's extra "test".
collect_wheels.py collects what another machine lacks. A check whose library is missing reports it.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from checks import Check, Result, Verdict, run_check, run_checks, table, write_results

DIFFERENCE, THROUGHPUT, TIMES, OVERHEAD = 1e-3, 0.8, 5.0, 1.1
PIXEL_AUC, ABOVE_GUESSING, IMPORTANCE = 0.7, 0.1, 0.5
SECONDS_MACHINE = 60  # limit for the description of the machine
PATIENCE = 4  # factor of the limits in a rehearsal
SMALL_DATA = "lidc-phantom:size=32,max_slice_thickness=1.0"


class Sizes(NamedTuple):
    """The options of the scripts: for a GPU, and for a rehearsal."""

    maps: str = "--size 64 --images 3"
    fidelity: str = "resnet50 --images 16 --repeats 3"
    main_job: str = ""
    main_job_more: str = ""
    main_job_explainer: str = "vinet:preset=tiny"
    protocol: str = "--images 10 --samples 100"
    training: str = "--steps 6 --repeats 3"
    precisions: str = "32 bf16"
    learning: str = ""
    paper_explainer: str = "vinet:preset=paper,epochs=10"
    learning_seconds: float = 150


REHEARSAL = Sizes(
    maps="--size 32 --images 1 --models convnet",
    fidelity="resnet50 --images 1 --repeats 1 --size 32 --rows 8",
    main_job=f"--dataset {SMALL_DATA}",
    main_job_more="--more --model convnet:epochs=1 --limit 16 --resamples 200 --batch-size 16 --no-model-view",
    main_job_explainer="vinet:preset=tiny,epochs=1",
    protocol="--size 32 --images 2 --samples 5",
    training="--steps 1 --repeats 1 --size 16 --batch 2 --no-host-memory",
    precisions="32",  # autocast on a CPU takes twice as long
    learning=f"--dataset {SMALL_DATA} --limit 10 --seconds 5",
    paper_explainer="vinet:preset=paper,epochs=1,train_batch=32",
    learning_seconds=60,
)


def cuda_tests(figures: dict[str, Any]) -> Verdict:
    """Judge the CUDA tests: none may fail or be skipped, and some must run."""
    if "absent" in figures:
        return Verdict("not run", "", figures["absent"])
    passed, failed, skipped = figures["passed"], figures["failed"], figures["skipped"]
    measured = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
    if failed:
        return Verdict("failed", measured, "; ".join(failed))
    if not passed:
        return Verdict("not run", measured, skipped[0] if skipped else "there are none")
    return Verdict("missed", measured, skipped[0]) if skipped else Verdict("passed", measured)


def equal_maps(figures: dict[str, Any]) -> Verdict:
    """Judge the maps: all must be within the difference. The worst are named."""
    rows = [row for row in figures["rows"] if "refused" not in row]
    compared = [row for row in rows if "difference" in row]
    errors = [f"{row['explainer']} of {row['model']}: {row['error']}" for row in rows if "error" in row]
    far = sorted((row for row in compared if not row["difference"] <= DIFFERENCE), key=lambda row: -row["difference"])
    measured = (
        f"{len(compared) - len(far)} of {len(rows)} within it; the worst "
        f"{max((row['difference'] for row in compared), default=float('nan')):.1e}, Spearman at least "
        f"{min((row['spearman'] for row in compared), default=float('nan')):.4f}, same places at least "
        f"{min((row['same_places'] for row in compared), default=float('nan')):.1%}"
    )
    if errors:
        return Verdict("failed", measured, "; ".join(errors[:5]) + (", ..." if len(errors) > 5 else ""))
    named = ", ".join(f"{row['explainer']} of {row['model']} {row['difference']:.1e}" for row in far)
    return _missed_if(bool(far), measured, named)


def throughput(figures: dict[str, Any]) -> Verdict:
    """Judge fidelity's passes per second, as a share of the bare ones."""
    share = 1 / figures["ratio"]
    measured = f"{share:.0%}: {1e3 / figures['ms_a_pass']:.0f} of {1e3 / figures['bare_ms_a_pass']:.0f} images a second"
    return _missed_if(share < THROUGHPUT, measured, "slower than asked")


def main_job(figures: dict[str, Any]) -> Verdict:
    """Judge the main job: it must run, and a second run must give the same numbers."""
    times = [f"{name} {value:.1f} s" for name, value in figures.items() if isinstance(value, float)]
    found = [f"{key} {value}" for key, value in next(iter(figures["found"].values())).items()]
    measured = ", ".join(times) + "; " + ", ".join(found)
    return _missed_if(not figures.get("same", True), measured, "the second run gave other numbers")


def five_times(figures: dict[str, Any]) -> Verdict:
    """Judge the time of all parts together against the documented use of the libraries."""
    parts = [
        f"{part} {spent['documented'] / spent['our']:.1f} and {spent['tuned'] / spent['our']:.1f} times"
        for part, spent in figures.items()
    ]
    apart = max(spent.get("difference", 0.0) for spent in figures.values())
    measured = f"as documented and tuned: {'; '.join(parts)}; scores differ by up to {apart:.1g}"
    ratio = figures["all"]["documented"] / figures["all"]["our"]
    return _missed_if(ratio < TIMES, measured, f"{ratio:.1f} times as fast in all")


def training(figures: dict[str, Any]) -> Verdict:
    """Judge the time of each training step relative to its bare passes."""
    rows = [(row, statistics.median(row["ratios"])) for row in figures["rows"]]
    lines = [
        f"{row['explainer']} {row['precision']}: {row['seconds_a_step']:.3f} s for {row['images']} images, "
        f"{ratio:.2f} of the bare passes, memory: {_megabytes(row)}"
        for row, ratio in rows
    ]
    slow = [f"{row['explainer']} {row['precision']}" for row, ratio in rows if not ratio <= OVERHEAD]
    return _missed_if(bool(slow), "; ".join(lines), ", ".join(slow))


def _megabytes(row: dict[str, Any]) -> str:
    return row["peak_of"] if row["peak_mb"] is None else f"{row['peak_mb']:.0f} MB of {row['peak_of']}"


def learning(figures: dict[str, Any]) -> Verdict:
    """Judge the first row, which is the preset's own shift. The others are for comparison."""
    lines = [
        f"shift={row['shift']:g}, {row['epochs']} epochs: pixel AUC {row['pixel_auc']:.3f}, accuracy "
        f"{row['accuracy']:.3f} (most frequent class {row['most_frequent_class']:.3f}), importance loss "
        f"{row['importance_loss']:.3f}"
        for row in figures["rows"]
    ]
    own = figures["rows"][0]
    right = own["accuracy"] >= own["most_frequent_class"] + ABOVE_GUESSING
    # A map that is 1 almost everywhere removes nothing, so it has learned nothing, even if its pixel AUC is high.
    learned = right and own["pixel_auc"] >= PIXEL_AUC and own["importance_loss"] <= IMPORTANCE
    return _missed_if(not learned, "; ".join(lines), "the preset's own shift did not in this time")


def _missed_if(missed: bool, measured: str, reason: str) -> Verdict:
    return Verdict("missed", measured, reason) if missed else Verdict("passed", measured)


def all_checks(sizes: Sizes, device: str) -> list[Check]:
    """Return the checks in their order, the most important first."""
    on = ("--device", device)
    keep = ("--keep", "{out}/main-job", "--seeds", *sizes.main_job.split(), *on)
    more = sizes.main_job_more.split()
    train = ("training_cost.py", "--preset", "paper", *sizes.training.split(), *on)
    train += ("--precision", *sizes.precisions.split())
    learn = ("vinet_learning.py", "--seconds", "{seconds}", "--run", "{out}/main-job", *sizes.learning.split(), *on)
    paper = sizes.paper_explainer
    return [
        Check("CUDA tests", "none fails or is skipped", ("cuda_tests.py",), cuda_tests, 90, ("pytest",)),
        Check(
            "maps against the CPU's",
            f"relative difference at most {DIFFERENCE:g}",
            ("maps_by_device.py", *sizes.maps.split(), *on),
            equal_maps,
            120,
        ),
        Check(
            "fidelity, ResNet-50",
            f"at least {THROUGHPUT:.0%} of the bare throughput",
            ("fidelity_overhead.py", *sizes.fidelity.split(), *on),
            throughput,
            75,
        ),
        Check(
            "main job, tiny preset",
            "the same numbers again",
            ("main_job.py", *keep, "--explainer", sizes.main_job_explainer, *more),
            main_job,
            150,
            least=30,
        ),
        Check(
            "Brocki's protocol against the libraries",
            f"{TIMES:g} times as fast as they are documented",
            ("protocol.py", *sizes.protocol.split(), *on),
            five_times,
            100,
            ("captum", "quantus", "saliency", "sklearn"),
        ),
        Check("training steps, paper presets", f"at most {OVERHEAD:g} of the bare passes", train, training, 90),
        Check(
            "VINet's paper preset learns",
            f"accuracy {ABOVE_GUESSING:g} above guessing, pixel AUC {PIXEL_AUC:g}, importance loss {IMPORTANCE:g}",
            learn,
            learning,
            sizes.learning_seconds,
            least=45,
        ),
        Check(
            "main job, paper preset",
            "it runs",
            ("main_job.py", "--once", "paper", *keep, "--explainer", paper, *more),
            main_job,
            300,
            least=60,
        ),
    ]


def machine(device: str, out: Path) -> dict[str, Any]:
    """Return a description of the machine, made in its own process."""
    asked = Check("machine", "", ("machine.py", "--device", device), lambda _: Verdict("passed", ""), SECONDS_MACHINE)
    found = run_check(asked, SECONDS_MACHINE, out)
    return found.figures or {"machine": f"could not be asked: {found.reason}"}


def header(options: argparse.Namespace, device: str) -> dict[str, Any]:
    """Describe the machine, the time and the kind of run, for the top of the results."""
    title = "xbench: rehearsal of the GPU checks" if options.rehearse else "xbench on a GPU"
    found: dict[str, Any] = {"title": title}
    if options.rehearse:
        found["rehearsal"] = (
            "a tenth of the size, to see that all of it runs: times, ratios and whether something is learned say "
            "nothing about a GPU; without CUDA its memory is not measured and its tests are skipped"
        )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return found | {"at": now} | machine(device, options.out)


def main() -> int:
    """Run all checks and print the table. Return 0 if all ran and passed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of the results [gpu-results]")
    parser.add_argument("--minutes", type=float, help="time for all checks; those without time left are not run [8]")
    parser.add_argument("--device", help="device to measure, in torch's words [cuda; in a rehearsal cpu]")
    parser.add_argument(
        "--rehearse", action="store_true", help="run small versions of all checks without a GPU; at most 20 minutes"
    )
    options = parser.parse_args()
    if options.minutes is not None and options.minutes <= 0:
        parser.error(f"--minutes {options.minutes:g} is no time")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the running check is killed too
    start = time.monotonic()
    device = options.device or ("cpu" if options.rehearse else "cuda")
    options.out = options.out.resolve() / time.strftime("%Y-%m-%d-%H%M%S")
    try:
        options.out.mkdir(parents=True)
    except OSError as error:
        parser.error(f"--out {options.out.parent} can't be written: {error.strerror}")
    above = header(options, device)
    if "machine" in above:
        sys.exit(f"{device} can't be used: {above['machine']}\n--rehearse runs the checks without a GPU")
    checks = all_checks(REHEARSAL if options.rehearse else Sizes(), device)
    if options.rehearse:
        checks = [replace(check, limit=PATIENCE * check.limit) for check in checks]

    def report(results: Any) -> None:
        write_results(options.out, above, results)

    # The last seconds are for writing the results.
    minutes = options.minutes or (20 if options.rehearse else 8)
    results = run_checks(checks, 60 * minutes - (time.monotonic() - start) - 5, options.out, report)
    above["minutes"] = round((time.monotonic() - start) / 60, 2)
    report(results)
    print(table(above, results))
    print(f"also in {options.out}")
    return 0 if all(fine(result, options.rehearse) for result in results) else 1


def fine(result: Result, rehearsal: bool) -> bool:
    """Return whether a check ran and passed, or in a rehearsal, whether it did not fail and was not cut short."""
    if rehearsal:
        return result.status in ("passed", "missed") or "NVIDIA" in result.reason
    return result.status == "passed"


if __name__ == "__main__":
    sys.exit(main())
