"""Help pages: panels, metavars and values, readable at 80 columns, fast."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.cli.main import COMMANDS, run
from edgepack.schemes import SCHEMES

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    [],
    *([command] for command in COMMANDS),
    *(["targets", verb] for verb in ("list", "show", "lint")),
    *(["cache", verb] for verb in ("show", "clear")),
]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def page(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return a help page."""
    assert run([*words, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def panels(text: str) -> dict[str, list[str]]:
    """Return the options of each panel, `-t, --target ID`, in order."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][a-z]+:", line):
            title = line[:-1]
            found[title] = []
        elif title and re.match(r"  \S", line):
            found[title].append(re.split(r"  +", line.strip())[0])
    return found


@pytest.mark.parametrize("words", PAGES, ids=lambda words: " ".join(words) or "edgepack")
def test_pages_fit_eighty_columns(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """No line is wider than a terminal of 80 columns, and no metavar is the name of a Python type."""
    text = page(capsys, *words)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "<" not in text
    assert "range]" not in text


def test_options_of_build_are_in_panels(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of build is in exactly one of six panels."""
    found = panels(page(capsys, "build"))
    assert list(found) == ["Arguments", "Model", "Data", "Accuracy", "Target", "Bundle", "Run"]
    options = [option for title, rows in found.items() if title != "Arguments" for option in rows]
    assert len(options) == len(set(options)) == 58
    assert "--samples SRC" in found["Data"]
    assert "--max-drop POINTS" in found["Accuracy"]
    assert "--max-size SIZE" in found["Accuracy"]
    assert "-t, --target ID" in found["Target"]
    assert "--compile-timeout SECONDS" in found["Target"]
    assert "--soc CHIP" in found["Target"]
    assert "-o, --out DIR" in found["Bundle"]
    assert found["Run"] == [
        "--project FILE", "--jobs N", "--scheduler ADDRESS", "--fail-fast", "--summary FILE", "--dry-run",
        "--timeout SECONDS",
        "--memory-limit SIZE", "--no-cache", "--cache URL", "--json", "-h, --help",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--scheme", ["auto", *SCHEMES]),
        ("--effort", ["low", "medium", "high"]),
        ("--ranges", ["minmax", "percentile", "mse", "entropy"]),
        ("--repair", ["exact", "approximate", "none"]),
        ("--compile", ["auto", "require", "never"]),
        ("--platform", ["android", "linux"]),
        ("--language", ["kotlin", "java"]),
        ("--delivery", ["module", "ai-pack", "aar"]),
        ("--runtime", ["litert1", "litert2"]),
    ],
)
def test_values_are_listed(capsys: pytest.CaptureFixture[str], option: str, values: list[str]) -> None:
    """The help of an option with fixed values lists them, and its default."""
    text = " ".join(page(capsys, "build").split())
    entry = text[text.index(f" {option} ") :]
    assert f"[{' | '.join(values)}; default: " in entry[: entry.index("]") + 1]


@pytest.mark.parametrize("words", [[], ["targets"], ["cache"]], ids=lambda words: " ".join(words) or "edgepack")
def test_a_group_without_a_command_prints_its_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """The help is on stdout, stderr is empty and the exit code is 2."""
    text = page(capsys, *words)
    assert run(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (text, "")


@pytest.mark.parametrize("words", [["--help"], ["build", "--help"]], ids=" ".join)
def test_help_does_not_load_rich(words: list[str]) -> None:
    """Panels are plain text: Rich, which Typer would need for them, is not imported."""
    code = (
        "import sys; from edgepack.cli.main import run; run(sys.argv[1:]); "
        "print('rich' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stderr.strip() == "False"


def test_each_command_has_a_short_description(capsys: pytest.CaptureFixture[str]) -> None:
    """The page of edgepack lists every command with a description that is not cut off."""
    text = page(capsys)
    assert "..." not in text.replace("[ARGS]...", "")
    assert [row.split()[0] for row in panels(text)["Commands"]] == list(COMMANDS)


def test_version_names_the_runtimes() -> None:
    """`--version` prints edgepack's version first, then those of what decides about files and figures."""
    from importlib.metadata import version

    command = [sys.executable, "-m", "edgepack", "--version"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == f"edgepack {version('edgepack')}"
    assert lines[1:] == [f"{name} {version(name)}" for name in ("ai-edge-litert", "ai-edge-quantizer", "tensorflow")]
