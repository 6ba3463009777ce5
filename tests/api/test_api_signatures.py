"""The functions of the library and the commands of the command line have the same options."""

import importlib
import inspect
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer

import edgepack

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = ("build", "check", "compare", "train", "verify", "inspect", "push", "pull")

#: Options that concern the output of the command line; `--all` of check and inspect, which list more.
OUTPUT_ONLY = {"json", "help", "all"}
#: What only a project file, or several models at once, need; the library builds one model per call.
PROJECT_ONLY = {"jobs", "scheduler", "fail_fast", "keep_going", "project"}
#: Parameters of the functions that no option has.
ARGUMENTS = {"model", "targets", "bundle", "bundles", "reference", "options", "progress"}


def options_of(command: str) -> dict[str, Any]:
    """The options of a command by the name of their keyword, with their defaults."""
    main = importlib.import_module("edgepack.cli.main")
    commands = typer.main.get_command(main.command_line()).commands  # type: ignore[attr-defined]
    found = {}
    for parameter in commands[command].params:
        names = [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]
        if names:
            found[names[0].removeprefix("--").replace("-", "_")] = parameter.default
    return found


def plain(value: Any) -> Any:
    """A default in the form that both agree on: without a value, an option is not given."""
    value = value() if callable(value) else value
    value = value.value if isinstance(value, Enum) else value
    if value in (None, "", [], (), False):
        return None
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize("command", COMMANDS)
def test_keywords_are_the_options_of_the_command(command: str) -> None:
    """Every option is a keyword of the same name and default, and every keyword is an option.

    A new option of the command line goes into the function of that name in edgepack/api/ as well.
    """
    parameters = inspect.signature(getattr(edgepack, command)).parameters
    keywords = {name: value.default for name, value in parameters.items() if name not in ARGUMENTS}
    options = {name: value for name, value in options_of(command).items() if name not in OUTPUT_ONLY | PROJECT_ONLY}
    if command == "push":
        options["all"] = False
    several = set() if command == "pull" else {"target"}
    assert keywords.keys() == options.keys() - several
    for name, default in keywords.items():
        if default is not inspect.Parameter.empty:
            assert plain(default) == plain(options[name]), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_keyword_is_documented_and_typed(command: str) -> None:
    """The docstring of a function describes each parameter, and each has a type; there is no **kwargs."""
    function = getattr(edgepack, command)
    for name, parameter in inspect.signature(function).parameters.items():
        assert f"        {name}: " in function.__doc__, name
        assert parameter.annotation is not inspect.Parameter.empty, name
        assert parameter.kind in {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}, name


def test_import_loads_nothing() -> None:
    """`import edgepack` loads neither NumPy nor TensorFlow nor rich, and its functions keep their names.

    Importing the modules behind a function must not replace it by a module of the same name.
    """
    code = (
        "import sys, edgepack; heavy = [m for m in ('numpy', 'tensorflow', 'rich', 'typer', 'jinja2', 'IPython') "
        "if m in sys.modules]; assert not heavy, heavy; import edgepack.pipeline.train, edgepack.pipeline.build; "
        f"assert all(callable(getattr(edgepack, n)) for n in {COMMANDS!r}); assert 'tensorflow' not in sys.modules; "
        "assert set(edgepack.__all__) <= set(dir(edgepack))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_attribute_errors() -> None:
    """A misspelled function is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        edgepack.biuld  # noqa: B018


CLIENT = """
from pathlib import Path

import numpy as np

import edgepack


def build(model: edgepack.ModelLike, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[Path]:
    labels = np.zeros(len(images), np.int64)
    results = edgepack.build(
        model, ["cpu", "hexagon@SM8550"], samples=images, eval=(images, labels), effort="medium", max_drop=0.5,
        max_size="500KB", out=Path("out"), progress=print,
    )
    for result in results:
        if result.quality is not None and result.quality.top1 is not None:
            top1: float = result.quality.top1
            print(result.target, top1)
    results.raise_for_error()
    first: edgepack.BuiltTarget = results["cpu"]
    size: int = len(first.model or b"")
    print(size, first.to_json()["scheme"])
    return [result.bundle for result in results if result.bundle is not None]


def others(path: Path) -> bool:
    checked = edgepack.check(str(path), "edgetpu")
    compared = edgepack.compare(path, samples=lambda: [np.zeros((8, 8, 1))])
    trained = edgepack.train(path, data=(np.zeros((9, 8)), np.zeros(9)), out="net")
    try:
        verified = edgepack.verify(path, eval={"x": np.zeros(3), "y": [1, 2, 3]})
    except edgepack.EdgepackError as error:
        print(error.hint)
        return False
    print(edgepack.inspect(path).inputs, compared["int8"].bytes, trained.report.bytes)
    return checked.ok and verified.ok


def wrong() -> None:
    edgepack.build("net.keras", "cpu", efort="low")  # type: ignore[call-arg]
    edgepack.build("net.keras", 3)  # type: ignore[arg-type]
"""


@pytest.mark.slow
def test_a_client_is_checked_by_mypy(tmp_path: Path) -> None:
    """A strictly typed program that uses every function passes mypy, and a misspelled option does not."""
    client = tmp_path / "client.py"
    client.write_text(CLIENT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(REPOSITORY / "pyproject.toml"),
         "--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent", str(client)],
        capture_output=True, text=True, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (REPOSITORY / "edgepack" / "py.typed").is_file()
