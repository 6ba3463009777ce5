"""Writes the first `edgepack.toml` of a folder from what `scan` found there, with comments for what it cannot know."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.names import file_stem
from edgepack.project.reader import OUT, default_name
from edgepack.project.scan import Findings, FoundModel, Role

#: Names that are listed in a comment; further ones are counted.
_LISTED = 5


@dataclass(frozen=True)
class DraftModel:
    """A model of the new file.

    Attributes:
        name: Its name, unique in the file.
        model: What was found.
        values: Options of this model.
    """

    name: str
    model: FoundModel
    values: Mapping[str, str]


@dataclass(frozen=True)
class Draft:
    """A new project file.

    Attributes:
        name: Name of the project.
        targets: Targets of all models.
        defaults: Options of all models.
        models: The models.
        choices: Further files for an option, of which the user has to choose.
    """

    name: str
    targets: tuple[str, ...]
    defaults: Mapping[str, str]
    models: tuple[DraftModel, ...]
    choices: Mapping[str, tuple[str, ...]]


def make_draft(name: str, found: Findings, targets: Sequence[str]) -> Draft:
    """Return the project file of what was found.

    A file belongs to a model whose name is in its path, or that is the only one beside it or below its folder. What
    belongs to none serves all models, where there is one such file; of several, the user chooses.

    Args:
        name: Name of the project.
        found: What the folder contains.
        targets: Targets of all models.
    """
    names = _unique_names(found.models)
    sources: dict[str, list[Path]] = {role: [] for role in (*Role, "labels")}
    for source in found.samples:
        # Training and evaluation need labels.
        role = Role.SAMPLES if source.role == Role.TRAIN and not source.labelled else source.role
        sources[role].append(source.path)
    sources["labels"] = list(found.labels)
    own: dict[int, dict[str, str]] = {number: {} for number in range(len(names))}
    defaults: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    for key, paths in sources.items():
        shared = []
        for path in paths:
            owner = _owner(path, found.models, names)
            if owner is not None and key not in own[owner]:
                own[owner][key] = path.as_posix()
            else:
                shared.append(path.as_posix())
        if len(shared) == 1:
            defaults[key] = shared[0]
        elif shared:
            choices[key] = tuple(shared)
    models = tuple(
        DraftModel(names[number], model, {key: own[number][key] for key in sources if key in own[number]})
        for number, model in enumerate(found.models)
    )
    return Draft(name, tuple(targets), defaults, models, choices)


def draft_text(draft: Draft, installed: Sequence[str], *, schema: str = "") -> str:
    """Return the text of a new project file.

    Args:
        draft: What it says.
        installed: Ids of all installed targets, for a comment.
        schema: Path of the JSON Schema for editors; empty for none.
    """
    lines = [f"#:schema ./{schema}", ""] if schema else []
    lines += [
        "# Models, and the targets to build each for. `edgepack build`, `check`, `compare` and `verify` work on it,",
        "# in this folder and below. Paths are relative to this file. A key is a flag without its dashes.",
        "",
        "[project]",
        f"name = {quoted(draft.name)}",
        f"out = {quoted(OUT)}  # bundles are written here",
        "",
        "[defaults]  # options of every model; a model's own win, and flags win over both",
        f"# installed: {', '.join(installed)}; a chip is hexagon@SM8550",
        f"targets = [{', '.join(map(quoted, draft.targets))}]",
    ]
    hints = {
        "samples": "representative inputs, for int8",
        "eval": "inputs to measure accuracy on, best with labels and others than the samples",
        "train": "labelled inputs, for quantization-aware training",
        "labels": "one class name per line",
    }
    for key, hint in hints.items():
        if key in draft.defaults:
            lines.append(f"{key} = {quoted(draft.defaults[key])}  # {hint}")
        elif key in draft.choices:
            lines += [f"# {hint}; choose one, or give models their own:", *_choices(key, draft.choices[key])]
        elif key in {"samples", "eval"} and not all(key in model.values for model in draft.models):
            lines.append(f'# {key} = "..."  # {hint}: an .npz, an .npy, a folder of images or module:function')
    lines.append("# max-drop = 1.0  # largest loss of accuracy in percentage points; more fails with exit code 8")
    for model in draft.models:
        lines += ["", "[[model]]", f"path = {quoted(model.model.path.as_posix())}"]
        if model.name != default_name(model.model.path):
            lines.append(f"name = {quoted(model.name)}")
        lines += [f"{key} = {quoted(value)}" for key, value in model.values.items()]
    target = draft.targets[0] if "@" not in draft.targets[0] else quoted(draft.targets[0])
    lines += ["", "# Options of one target of the model above:", f"# [model.target.{target}]", "# require-full = true"]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a text as a basic string of TOML, on one line."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _choices(key: str, paths: Sequence[str]) -> Iterable[str]:
    yield from (f"# {key} = {quoted(path)}" for path in paths[:_LISTED])
    if len(paths) > _LISTED:
        yield f"# and {len(paths) - _LISTED} more"


def _unique_names(models: Sequence[FoundModel]) -> list[str]:
    """Return a name for each model: the file's, with its folder, its format or a number where that is taken."""
    names: list[str] = []
    for model in models:
        plain = default_name(model.path)
        folder = default_name(Path(f"{model.path.parent.name}_"))
        ways = [plain, f"{plain}-{model.format}", *([f"{folder.strip('_')}-{plain}"] if model.path.parent.name else [])]
        ways += [f"{plain}-{number}" for number in range(2, len(models) + 2)]
        taken = {_file_key(name) for name in names}
        names.append(next(way for way in ways if _file_key(way) not in taken))
    return names


def _file_key(name: str) -> str:
    return file_stem(name).casefold()


def _owner(path: Path, models: Sequence[FoundModel], names: Sequence[str]) -> int | None:
    """Return the number of the model that a file belongs to, None for none or several."""
    text = path.with_suffix("").as_posix().casefold()
    named = [number for number, name in enumerate(names) if len(name) > 2 and name.casefold() in text]
    if len(named) == 1 and len(models) > 1:
        return named[0]
    near = [
        number
        for number, model in enumerate(models)
        if model.path.parent.parts and path.is_relative_to(model.path.parent)
    ]
    return near[0] if len(near) == 1 and len(models) > 1 else None
