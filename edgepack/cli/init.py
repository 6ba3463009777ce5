"""`edgepack init`."""

from pathlib import Path
from typing import Any

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init", cls=panels.Command)(init)


def init(
    folder: Path = typer.Argument(
        Path(), metavar="[FOLDER]", help="Folder of the project; the current one by default.", show_default=False
    ),
    target: list[str] = arguments.option(
        panels.TARGET,
        "-t, --target",
        "ID",
        "Target of the models, such as edgetpu, or hexagon@SM8550 with a chip; repeatable.",
        default=[],
        show_default="cpu",
    ),
    schema: bool = arguments.flag(
        panels.OUTPUT, "--schema", "Also write edgepack.schema.json, by which editors check and complete the file."
    ),
    json_: bool = arguments.JSON,
) -> int:
    """Write a project file, edgepack.toml, from the models and samples in a folder."""
    from edgepack.files import write_atomically
    from edgepack.profiles.registry import known_ids
    from edgepack.project.discovery import FILE_NAME
    from edgepack.project.draft import draft_text, make_draft
    from edgepack.project.reader import resolve
    from edgepack.project.scan import scan
    from edgepack.project.schema import FILE_NAME as SCHEMA_NAME
    from edgepack.project.schema import schema_text

    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder", hint="create it first")
    targets = list(dict.fromkeys(target)) or ["cpu"]
    for text in targets:
        resolve(text)
    files = {folder / FILE_NAME: ""} | ({folder / SCHEMA_NAME: schema_text()} if schema else {})
    for file, text in files.items():
        # A schema that is the same already is no loss.
        if file.is_symlink() or (file.exists() and (not text or file.read_bytes() != text.encode())):
            raise UsageError(f"'{file}' exists already", hint="change it, or remove it first; init replaces no file")
    found = scan(folder)
    if not found.models:
        left_out = "".join(f"; {note}" for note in found.notes[:3])
        raise UsageError(
            f"no models in '{folder}' and the folders in it{left_out}",
            hint="edgepack reads .keras, .h5, .tflite and SavedModel folders; put one there, then run init again",
        )
    draft = make_draft(folder.absolute().resolve().name or "project", found, targets)
    files[folder / FILE_NAME] = draft_text(draft, known_ids(), schema=SCHEMA_NAME if schema else "")
    for file, text in reversed(files.items()):
        if not file.exists():
            write_atomically(file, text)
    if json_:
        results = [
            {
                "name": model.name,
                "path": model.model.path.as_posix(),
                "format": model.model.format,
                **dict(model.values),
            }
            for model in draft.models
        ]
        more: dict[str, Any] = {
            "files": [str(file) for file in files],
            "targets": targets,
            "defaults": dict(draft.defaults),
        }
        output.document("init", results, **more, choices=dict(draft.choices), notes=found.notes)
        return 0
    for file in files:
        output.out(f"wrote {file}")
    output.out(output.table(("model", "file"), [(model.name, _shown(str(model.model.path))) for model in draft.models]))
    for key, value in draft.defaults.items():
        output.out(output.wrap(f"{key} of all models: {_shown(value)}"))
    for note in found.notes:
        output.out(output.wrap(f"note: {_shown(note)}"))
    if draft.choices:
        keys = ", ".join(draft.choices)
        output.out(output.wrap(f"choose in the file, which has several: {keys}"))
    output.out(output.wrap("next: look at the file, then `edgepack check` and `edgepack build`"))
    return 0


def _shown(text: str) -> str:
    """Return a text for the terminal: names of files may contain escape sequences."""
    return text if text.isprintable() else repr(text)
