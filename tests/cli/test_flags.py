"""Flags and keys of the project file are one table: what one can say, the other can."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from edgepack.cli.flags import Given
from edgepack.cli.main import command_line
from edgepack.pipeline.options import BuildOptions
from edgepack.project.definition import Scope
from edgepack.project.option_table import BY_NAME, MODEL_KEYS, OPTIONS, options_of
from edgepack.project.reader import read_project
from edgepack.project.values import build_options, default_of

#: Flags that are no keys of the file, and why; each needs a reason that a user would accept.
NO_KEYS = {
    "target": "`targets` is a list of its own, with chips",
    "out": "`out` of [project]: all bundles of a project are in one folder",
    "name": "`name` of [[model]]: two models cannot share one",
    "dry-run": "concerns one run",
    "json": "concerns the output of one run",
    "project": "names the file itself",
    "cache": "`cache` of [project]: results of all models are shared",
    "ask-compiler": "check: whose word is shown in one run",
    "help": "is Typer's own",
    "all": "check: how much is printed",
    "sarif": "check: a file to write in one run",
    "summary": "build and check: a file to write in one run",
    "jobs": "the machine that one run is on",
    "scheduler": "build: the machines that one run is on",
    "fail-fast": "build: when one run ends",
    "html": "compare: a file to write in one run",
}


def flags(command: str) -> dict[str, Any]:
    """Return the flags of a command as Typer has them."""
    leaf = typer.main.get_command(command_line()).commands[command]  # type: ignore[attr-defined]
    return {
        max(parameter.opts, key=len).removeprefix("--"): parameter
        for parameter in leaf.params
        if parameter.param_type_name == "option"
    }


@pytest.mark.parametrize("command", ["build", "check", "compare"])
def test_every_flag_is_a_key_and_the_reverse(command: str) -> None:
    """A flag that is no key of the file is in a short list with its reason, and every key is a flag of build."""
    found = flags(command)
    assert {name for name in found if name not in MODEL_KEYS} <= set(NO_KEYS)
    assert [name for name in found if name in BY_NAME] == [option.name for option in options_of(command)]
    if command == "build":
        assert set(MODEL_KEYS) <= set(found)


def test_every_field_of_a_build_is_an_option() -> None:
    """A field that is added to the options of a build fails here until it has a flag and a key."""

    def names(value: Any, prefix: str = "") -> set[str]:
        found = set()
        for field in fields(value):
            inner = getattr(value, field.name)
            found |= names(inner, f"{field.name}.") if is_dataclass(inner) else {f"{prefix}{field.name}"}
        return found

    assert names(BuildOptions()) == {option.attribute for option in OPTIONS if option.attribute}
    assert all(option.instead for option in OPTIONS if option.scope == Scope.NOWHERE)


#: Each option as a flag and as a line of the file; the values differ from the defaults.
BOTH = {
    "input-shape": (["image=1,2,3", "x=4"], "{ image = [1, 2, 3], x = [4] }"),
    "co-compile": ([Path("a.tflite"), Path("/b")], '["a.tflite", "/b"]'),
    "soc": (["SM8550"], '["SM8550"]'),
    "max-size": ("1.5MiB", '"1.5MiB"'), "max-download": ("800000", "800000"), "memory-limit": ("8GB", '"8GB"'),
    "scheme": ("int8", '"int8"'), "effort": ("high", '"high"'), "ranges": ("mse", '"mse"'),
    "repair": ("none", '"none"'),
    "compile": ("never", '"never"'), "platform": ("linux", '"linux"'), "language": ("java", '"java"'),
    "runtime": ("litert2", '"litert2"'), "delivery": ("aar", '"aar"'),
    "max-drop": (0.5, "0.5"), "timeout": (7.0, "7"), "compile-timeout": (9.0, "9.0"),
    "calibration-samples": (5, "5"), "epochs": (3, "3"), "runtime-version": (2, "2"), "segments": (2, "2"),
    "simulate-seconds": (5.0, "5"),
    "samples": ("data:make", '"data:make"'), "eval": ("data/x.npz", '"data/x.npz"'), "train": ("photos", '"photos"'),
    "signature": ("serve", '"serve"'), "variant": ("v", '"v"'), "preprocess": ("auto", '"auto"'),
    "resize": ("letterbox", '"letterbox"'), "task": ("embedding", '"embedding"'),
    "package": ("a.b", '"a.b"'),
    "labels": (Path("l.txt"), '"l.txt"'), "metadata": (Path("m.toml"), '"m.toml"'), "sign-key": (Path("k"), '"k"'),
    **dict.fromkeys(
        ["allow-code", "random-calibration", "per-tensor", "strict", "require-full", "cut-tail", "sign", "no-cache",
         "force", "simulate", "sample-app"],
        (True, "true"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODEL_KEYS)
def test_flag_and_key_mean_the_same(tmp_path: Path, name: str) -> None:
    """The file and the command line give the same options, and both change the option that they name."""
    typed, line = BOTH[name]
    file = tmp_path / "edgepack.toml"
    file.write_text(f"[[model]]\npath = 'a'\ntargets = ['cpu']\n{name} = {line}\n", encoding="utf-8")
    (cell,) = read_project(file).cells
    value = BY_NAME[name].choices(typed) if BY_NAME[name].choices else typed  # type: ignore[misc]
    given = Given({name: value})
    expected = build_options({"force": True} | given.values(tmp_path), out=tmp_path / "out", name="a")
    assert cell.options == expected
    assert given.options() != BuildOptions()
    option = BY_NAME[name]
    (written,) = given.values().values()
    assert (not written if option.negated else written) != default_of(option)


def test_help_texts_name_no_flag_twice() -> None:
    """Names in the table are unique and in the form of a flag."""
    assert len(BY_NAME) == len(OPTIONS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", option.name) for option in OPTIONS)
