"""One wrapper per vendor's compiler: find it, run it, verify its output, and translate its failures."""

from edgepack.compilers.base import (
    Companion,
    CompiledOp,
    Compiler,
    CompileRequest,
    CompileResult,
    Difference,
    check_options,
    compare_placements,
    placements_from_files,
)
from edgepack.compilers.outer_state import compile_model
from edgepack.compilers.registry import all_compilers, compiler_ids, get_compiler

__all__ = [
    "Companion",
    "CompileRequest",
    "CompileResult",
    "CompiledOp",
    "Compiler",
    "Difference",
    "all_compilers",
    "check_options",
    "compare_placements",
    "compile_model",
    "compiler_ids",
    "get_compiler",
    "placements_from_files",
]
