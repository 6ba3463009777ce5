"""Option values: one enum each, with the same values wherever they are used, written to JSON as plain text."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from edgepack import choices
from edgepack.cache import key_of
from edgepack.choices import (
    Effort,
    IoType,
    LossName,
    Platform,
    RangeMethod,
    Recipe,
    Repair,
    SchemeChoice,
    SparsitySchedule,
    parse_choice,
)
from edgepack.errors import UsageError
from edgepack.pipeline.options import BuildOptions, TargetOptions
from edgepack.pipeline.train import TrainRequest
from edgepack.quantize.ranges import METHODS
from edgepack.repair import MODES
from edgepack.schemes import SCHEMES
from edgepack.training import RECIPES, TrainOptions

ENUMS = [value for value in vars(choices).values() if isinstance(value, type) and issubclass(value, StrEnum)]


@pytest.mark.parametrize(
    ("enum", "values"),
    [(SchemeChoice, ["auto", *SCHEMES]), (RangeMethod, METHODS), (Repair, MODES), (Recipe, RECIPES)],
    ids=["scheme", "ranges", "repair", "recipe"],
)
def test_enums_list_what_is_implemented(enum: type[StrEnum], values: Any) -> None:
    """Every value of an option is implemented, and everything implemented can be chosen."""
    assert sorted(enum) == sorted(values)


@pytest.mark.parametrize("member", [member for enum in ENUMS if enum is not StrEnum for member in enum], ids=repr)
def test_values_serialize_as_their_text(member: StrEnum) -> None:
    """JSON documents, messages and cache keys are the same as with plain text."""
    text = member.value
    assert json.dumps({"value": member}) == json.dumps({"value": text})
    assert f"{member}" == str(member) == text
    assert key_of("step", {"value": member}) == key_of("step", {"value": text})


def test_options_convert_texts() -> None:
    """The library accepts the text of a value, at creation and in dataclasses.replace; empty text is no choice."""
    options = BuildOptions(effort="high", method="mse", platform="", target=TargetOptions(repair="none"))  # type: ignore[arg-type]
    assert (options.effort, options.method, options.platform) == (Effort.HIGH, RangeMethod.MSE, None)
    assert options.target.repair is Repair.NONE
    assert replace(options, platform="linux").platform is Platform.LINUX  # type: ignore[arg-type]
    training = TrainOptions(loss="binary_crossentropy", pattern="", schedule="constant")  # type: ignore[arg-type]
    assert (training.loss, training.pattern) == (LossName.BINARY_CROSSENTROPY, None)
    assert training.schedule is SparsitySchedule.CONSTANT
    request = TrainRequest("data.npz", "prune+qat", Path("out"), io="uint8")  # type: ignore[arg-type]
    assert (request.recipe, request.io) == (Recipe.PRUNE_QAT, IoType.UINT8)


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("--scheme", "scheme"),
        ("--effort", "effort"),
        ("--ranges", "method"),
        ("--compile", "compile"),
        ("--language", "language"),
        ("--platform", "platform"),
        ("--delivery", "delivery"),
    ],
)
def test_unknown_values_are_refused_at_creation(option: str, field: str) -> None:
    """A text that names no value raises UsageError with the option and its values."""
    with pytest.raises(UsageError, match=f"{option}: expected .* or .*, got 'nonsense'"):
        BuildOptions(**{field: "nonsense"})


def test_the_message_lists_the_values() -> None:
    """The message is a sentence that lists every value."""
    with pytest.raises(UsageError) as error:
        parse_choice("--effort", Effort, "x")
    assert error.value.message == "--effort: expected low, medium or high, got 'x'"
