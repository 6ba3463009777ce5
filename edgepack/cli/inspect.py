"""`edgepack inspect`."""

import json
from pathlib import Path
from typing import Any

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.text import readable_size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect", cls=panels.Command)(inspect)


def inspect(
    model: Path = typer.Argument(
        ..., metavar="PATH", help="A model file, a SavedModel folder or a bundle.", show_default=False
    ),
    input_shape: list[str] = arguments.INPUT_SHAPE,
    signature: str | None = arguments.SIGNATURE,
    allow_code: bool = arguments.ALLOW_CODE,
    every: bool = arguments.flag(panels.OUTPUT, "--all", "List every op and every tensor."),
    timeout: float = arguments.TIMEOUT,
    memory_limit: str | None = arguments.MEMORY_LIMIT,
    no_cache: bool = arguments.NO_CACHE,
    json_: bool = arguments.JSON,
) -> int:
    """Show the inputs, outputs, ops, quantization and sizes of a model."""
    from edgepack.pipeline.inspect import inspect as run

    document = run(
        arguments.require_path(model),
        arguments.model_options(input_shape, signature, allow_code, timeout, no_cache, memory_limit),
        arguments.progress(json_),
    )
    if json_:
        output.document("inspect", [document])
    else:
        _print(document, every)
    return 0


def _print(document: dict[str, Any], every: bool) -> None:
    output.out(
        output.wrap(
            f"{document['file']}: {readable_size(document['bytes'])}, {document['scheme']}, "
            f"{len(document['ops'])} ops, {readable_size(document['constant_bytes'])} of constants"
        )
    )
    for key in ("source_format", "min_runtime_version", "description"):
        if document[key]:
            output.out(f"  {key.replace('_', ' ')}: {document[key]}")
    if document["stateful"]:
        output.out("  state: kept from run to run; a reset returns to the initial state")
    for kind in ("inputs", "outputs"):
        output.out(f"{kind}:")
        for tensor in document[kind]:
            scale = f", scale {tensor['scale']:.8g}, zero point {tensor['zero_point']}" if tensor["scale"] else ""
            output.out(
                output.wrap(f"  {tensor['name']}  {tensor['dtype']} {json.dumps(tensor['shape'])}{scale}", "    ")
            )
    if document["metadata"] is not None:
        _print_metadata(document["metadata"])
    output.out("ops:")
    if every:
        for op in document["ops"]:
            output.out(output.wrap(f"  {op['index']:4d}  {op['op']} v{op['version']}  {op['output']}", "        "))
        output.out("tensors:")
        for tensor in document["tensors"]:
            kind = "constant" if tensor["constant"] else "activation"
            scale = f" scale {tensor['scale']:.6g}" if tensor["scale"] else ""
            scale = f" {tensor['channels']} scales" if tensor["channels"] > 1 else scale
            output.out(
                output.wrap(
                    f"  {tensor['index']:4d}  {tensor['dtype']} {json.dumps(tensor['shape'])} {kind}{scale}  "
                    f"{tensor['name']}",
                    "        ",
                )
            )
    else:
        output.out(
            output.wrap("  " + ", ".join(f"{op} x{count}" for op, count in document["op_counts"].items()), "    ")
        )
    for signature in document["signatures"]:
        output.out(
            output.wrap(
                f"signature {signature['key']}: {', '.join(signature['inputs'])} -> {', '.join(signature['outputs'])}"
            )
        )


def _print_metadata(metadata: dict[str, Any]) -> None:
    facts = [f"{key}: {metadata[key]}" for key in ("name", "version", "author", "license") if metadata[key]]
    output.out(output.wrap("metadata: " + ", ".join(facts), "    "))
    for tensor in (*metadata["inputs"], *metadata["outputs"]):
        parts = [tensor["description"].rstrip(".")] if tensor["description"] else []
        if tensor["mean"]:
            pairs = (" ".join(f"{value:g}" for value in tensor[key]) for key in ("mean", "std"))
            parts.append("(pixel - {}) / {}".format(*pairs))
        if tensor["labels"]:
            first = ", ".join(f"'{label}'" for label in tensor["labels"][:3])
            parts.append(f"{len(tensor['labels'])} labels: {first}{', ...' if len(tensor['labels']) > 3 else ''}")
        if parts:
            output.out(output.wrap(f"  {tensor['name']}  {'; '.join(parts)}", "    "))
