"""Compilation of models with resource variables by compilers that refuse them: the state stays on the CPU.

The compiler receives the model with each variable as an input and an output (`edgepack.graph.external_state`), and the
variables are put back around what it made of that. An app sees neither: inputs, outputs and state are the model's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgepack.compilers.base import CompiledOp, Compiler, CompileRequest, CompileResult
from edgepack.errors import CompilerError, ModelFileError
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.graph.external_state import ExternalState, external_state, state_ops, with_state


def compile_model(compiler: Compiler, request: CompileRequest, timeout: float) -> CompileResult:
    """Compile a model, without its variables where the request says that the compiler refuses these.

    Args:
        compiler: The vendor's compiler.
        request: What to compile; `external_state` as the target's profile says.
        timeout: Seconds for all attempts together.

    Returns:
        The result of `Compiler.compile`, whose files have the variables of the model. Ops that access them count as ops
        on the host; those without a result (CALL_ONCE, ASSIGN_VARIABLE) have no row in `placements`.

    Raises:
        UsageError, ToolMissingError, CompilerError: See `Compiler.compile`; also where a compiled file lost the state.
    """
    external = external_state(request.model) if request.external_state else None
    if external is None:
        return compiler.compile(request, timeout)
    result = compiler.compile(replace(request, model=external.tflite), timeout)
    try:
        files = {name: with_state(external, data) for name, data in result.files.items()}
    except ModelFileError as error:
        raise CompilerError(
            f"the state of the model could not be put back around the compiled part: {error.message}",
            hint="report an issue with the model; without --soc the phone compiles the model itself",
        ) from error
    rows = result.placements
    if rows is not None:
        rows = (*rows, *_state_rows(external))
        if external.original is not request.model:
            # The rows name outputs that the model does not have.
            rows = tuple(replace(row, output="") for row in rows)
    return replace(result, files=files, placements=rows, figures=_figures(result, files, external.removed))


def _state_rows(external: ExternalState) -> list[CompiledOp]:
    state = state_ops(read_model(external.original))
    return [
        CompiledOp(
            op.label, 1, Placement.HOST, "left in the compiled file", "left-by-compiler", state.graph.output_name(op)
        )
        for op in state.ops
        if op.outputs
    ]


def _figures(result: CompileResult, files: Mapping[str, bytes], removed: int) -> dict[str, Any]:
    """Return the figures of each SoC for the file with its variables."""
    sizes = {soc: len(files[name]) for name, soc in result.chips.items()}
    return {
        soc: {**entry, "bytes": sizes.get(soc, entry["bytes"]), "ops_total": entry["ops_total"] + removed}
        if isinstance(entry, dict) and {"bytes", "ops_total"} <= entry.keys()
        else entry
        for soc, entry in result.figures.items()
    }
