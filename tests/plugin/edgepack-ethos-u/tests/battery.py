"""The battery: single ops on both sides of Vela's limits, with the data types, ranks and axes that decide.

`python -m tests.battery u85-256` asks Vela about every case for a variant (minutes) and prints where the check of the
same op disagrees.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack.compat import check
from edgepack.compilers import Compiler, CompileRequest
from edgepack.errors import CompilerError
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.profiles import TargetProfile, load_profile
from edgepack.profiles.variants import resolve_variant

from .cases_elementwise import elementwise, reductions
from .cases_movement import movements, slices
from .cases_others import held_out, others
from .cases_windows import convolutions, pools, products, resizes
from .op_files import Case, model_of

#: Ops in a file for Vela: more are slower, because it schedules them together.
_GROUP = 8


def cases() -> list[Case]:
    """Return the battery, in a fixed order."""
    groups = (
        elementwise, reductions, movements, slices, convolutions, products, pools, resizes, others, held_out,
    )  # fmt: skip
    return [case for group in groups for case in group()]


def ask(compiler: Compiler, options: Mapping[str, Any], asked: Sequence[Case]) -> dict[str, str]:
    """Return where Vela places each case: `accelerator`, `host`, or `fails` when it writes no file because of it."""
    try:
        result = compiler.compile(CompileRequest(model_of(asked), "battery", "int8", options), timeout=60)
    except CompilerError:
        if len(asked) == 1:
            return {asked[0].name: "fails"}
        half = len(asked) // 2
        return ask(compiler, options, asked[:half]) | ask(compiler, options, asked[half:])
    return {row.output: str(row.placement) for row in result.placements or ()}


def predict(profile: TargetProfile, variant: str, case: Case) -> str:
    """Return what the check says of a case, in the same words."""
    (op,) = check(read_model(model_of([case])), profile, variant=variant).ops
    if any(reason.code == "compile-fails" for reason in op.reasons):
        return "fails"
    # Vela leaves ops to the CPU without knowing whether its runtime has them.
    return str(Placement.ACCELERATOR if op.placement is Placement.ACCELERATOR else Placement.HOST)


def agreement(
    profile: TargetProfile, variant: str, compiler: Compiler, options: Mapping[str, Any], asked: Sequence[Case]
) -> tuple[int, list[str]]:
    """Return how many cases were asked, and a line for each that the check places differently."""
    ours = {case.name: predict(profile, variant, case) for case in asked}
    theirs: dict[str, str] = {}
    # Cases that are expected to fail go alone, so that they cost no other a second run.
    together = [case for case in asked if ours[case.name] != "fails"]
    for start in range(0, len(together), _GROUP):
        theirs |= ask(compiler, options, together[start : start + _GROUP])
    for case in asked:
        if ours[case.name] == "fails":
            theirs |= ask(compiler, options, [case])
    lines = [f"{name}: check {ours[name]}, Vela {theirs.get(name)}" for name in ours if ours[name] != theirs.get(name)]
    return len(ours), lines


def main() -> None:
    """Print the agreement of a variant over the whole battery."""
    from edgepack_ethos_u.compiler import VelaCompiler

    variant = sys.argv[1]
    profile = load_profile(Path(__file__).resolve().parents[1] / "edgepack_ethos_u")
    rule = resolve_variant(profile, variant=variant).compiler
    asked, lines = agreement(profile, variant, VelaCompiler(), dict(rule.options if rule else {}), cases())
    print("\n".join([*lines, f"{variant}: {asked - len(lines)} of {asked} ops placed as Vela places them"]))


if __name__ == "__main__":
    main()
