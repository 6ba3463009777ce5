"""Runs edgepack on each model of the action's inputs, and writes the summary, the SARIF files and the exit code."""

import glob
import os
import shlex
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the command on every model; a refused model does not end the others. Returns the highest exit code."""
    command = os.environ["EDGEPACK_COMMAND"]
    if command not in ("check", "build"):
        print(f"::error::command: expected check or build, got '{command}'")
        return 2
    models = _models(os.environ["EDGEPACK_MODELS"])
    if not models:
        print("::error::models: no path or pattern matches a file")
        return 2
    targets = os.environ["EDGEPACK_TARGETS"].replace(",", " ").split()
    fixed = [word for target in targets for word in ("--target", target)]
    fixed += ["--dry-run"] if command == "build" else []
    fixed += shlex.split(os.environ["EDGEPACK_ARGUMENTS"])
    folder = Path(os.environ["EDGEPACK_SARIF"] or "edgepack-sarif")
    worst = 0
    for number, model in enumerate(models):
        summary = folder / f"{number}.md"
        folder.mkdir(parents=True, exist_ok=True)
        options = [*fixed, "--summary", str(summary)]
        if command == "check":
            options += ["--sarif", str(folder / f"{number}-{Path(model).name}.sarif")]
        print(f"::group::edgepack {command} {model}", flush=True)
        done = subprocess.run([sys.executable, "-m", "edgepack", command, *options, "--", model], check=False)
        print("::endgroup::", flush=True)
        worst = max(worst, done.returncode if done.returncode >= 0 else 1)
        _append("GITHUB_STEP_SUMMARY", _summary(summary, model, done.returncode))
        summary.unlink(missing_ok=True)
    _append("GITHUB_OUTPUT", f"exit-code={worst}\n")
    return worst


def _models(text: str) -> list[str]:
    """Return the models of the patterns, each once, in the order of the patterns; Keras models may be folders."""
    patterns = [line.strip() for line in text.splitlines() if line.strip()]
    # Not Path.glob, which refuses absolute patterns.
    found = [path for pattern in patterns for path in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    return list(dict.fromkeys(found))


def _summary(file: Path, model: str, exit_code: int) -> str:
    if file.is_file():
        return file.read_text(encoding="utf-8") + "\n"
    name = model.replace("`", "'")
    return f"### `{name}`\n\nedgepack ended with exit code {exit_code}: see the log of this step.\n\n"


def _append(variable: str, text: str) -> None:
    path = os.environ.get(variable)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
