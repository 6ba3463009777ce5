"""Write the op table of targets/hexagon from what Qualcomm's compiler did with the battery."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qnn_battery import cases

from edgepack.compat.rules_types import joined_dtypes

#: Cases that vary what a constraint of its own is about; the others say which data types an op takes.
_RANKS = {"rank5": 5, "rank6": 6, "rank6_float": 6, "to6": 6, "from6": 6, "to5": 5}
_SPECIAL = {
    "fused2", "fused3", "dynamic_begin", "scalar_index", "batch_dims", "scalar", "scalars", "x", "r", "xr",
    "wide_then", "wide_else", "wide_both", *_RANKS,
}  # fmt: skip

#: Data types that ranks were varied with, and the highest rank that any op takes.
_KINDS = ("INT8", "INT16", "FLOAT32")
_HIGHEST = 5

#: Constraints on attributes, by op: what the special cases of the battery show.
ATTRIBUTES: Mapping[str, str] = {
    "SLICE": "written-shapes = true",
    # Of an open dimension the file holds 1, with which the output may have another shape.
    **dict.fromkeys(("DEPTH_TO_SPACE", "PAD", "PADV2", "RESHAPE", "SPACE_TO_DEPTH"), "written-shapes = true"),
    # A scalar has no place in QNN: shapes that are computed at run time end here.
    "STRIDED_SLICE": "range = { output_rank = [1, inf] }",
    "GATHER": "options = { batch_dims = [0] }\nrange = { index_rank = [1, inf] }",
}
_NO_RELU6 = 'when = [{ if = { signatures = [%s] }, then = { fused-activation = ["NONE", "RELU"] } }]'
_FUSED = ("ADD", "SUB", "MUL", "DIV", "CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")

_SCALARS = ("INT8", "UINT8", "INT16", "INT32", "FLOAT32")

#: Ops of the compiler that the battery has no model of, with a row of the same data types.
LIKE = {"ADD_N": "ADD"}


def table(document: Mapping[str, Any]) -> str:
    """Return the text of ops.toml.

    Args:
        document: What `measure_qnn_ops` wrote.
    """
    count = {(case.op, case.name, case.dtype, tuple(s.dtype or case.dtype for s in (*case.inputs, *case.outputs))):
             len(case.inputs) for case in cases()}  # fmt: skip
    chips = list(document["chips"])
    plain: dict[str, dict[str, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
    ranks: dict[str, dict[str, int]] = defaultdict(dict)
    computed: dict[str, set[int]] = defaultdict(set)
    # CONV_3D has rank 5; other ops fail at that rank as well unless v68 was seen to leave them to the host.
    failing_ranks: dict[str, int] = defaultdict(lambda: 5)
    for result in document["results"]:
        op, name = result["op"], result["case"]
        dtypes = tuple(result["dtypes"])
        outcome = tuple(result["chips"][chip].split(":")[0] for chip in chips)
        inputs = count[op, name, result["dtype"], dtypes]
        key = joined_dtypes(dtypes[:inputs], dtypes[inputs:])
        if name.startswith("computed"):
            if "htp" not in outcome:
                computed[op].add(int(name.removeprefix("computed")))
            continue
        if _RANKS.get(name) == 5 and result["dtype"] == "FLOAT32" and outcome[0] == "host":
            failing_ranks[op] = 4
        kind = result["dtype"]
        if name in _RANKS and "htp" not in outcome and kind in _KINDS and key in plain[op] and _any(plain[op][key]):
            ranks[op][kind] = min(ranks[op].get(kind, 9), _RANKS[name] - 1)
        if name not in _SPECIAL:
            plain[op][key].append(outcome)
    rows: dict[str, list[str]] = defaultdict(list)
    failing: dict[tuple[tuple[str, ...], int, tuple[str, ...]], list[str]] = defaultdict(list)
    for op, signatures in plain.items():
        placed = {key: [chip for i, chip in enumerate(chips) if any(outcome[i] == "htp" for outcome in outcomes)]
                  for key, outcomes in signatures.items()}  # fmt: skip
        fails = tuple(
            key
            for key, outcomes in signatures.items()
            if chips[0] not in placed[key] and any(outcome[0] == "fails" for outcome in outcomes)
        )
        if any(placed.values()):
            rows[_row(op, placed, ranks[op], chips, sorted(computed[op]))].append(op)
        if fails:
            failing[fails, failing_ranks[op], _valid(op, sorted(computed[op]))].append(op)
    for op, other in LIKE.items():
        next(ops for ops in rows.values() if other in ops).append(op)
    parts = [_HEAD % {"compiler": document["compiler"]}]
    for body, ops in sorted(rows.items(), key=lambda item: item[1]):
        parts.append(f'[[row]]\nops = [{_list(sorted(ops))}]\nsource = "qnn-measured"\n{body}\n')
    parts.append(_FILE)
    for (keys, rank, valid), ops in sorted(failing.items(), key=lambda item: item[1]):
        parts.append(
            f'[[file.failing]]\nops = [{_list(sorted(ops))}]\nsource = "qnn-measured"\n'
            f'reason = "v68 validates the op with these data types and then cannot create it"\n'
            f'fix = "quantize the op to int8, or compile for v73 and later only"\n'
            f"range = {{ arch = [68, 69]{valid[0]} }}\nmax-rank = {rank}\nsignatures = [{_list(keys)}]\n"
            + "".join(f"{line}\n" for line in valid[1:])
        )
    parts.append(_FAILING)
    return "\n".join(parts)


def _valid(op: str, constant: Sequence[int]) -> tuple[str, ...]:
    """Return what an op must meet beside its data types to be accepted, and hence to fail: ranges, further lines."""
    ranges, lines = "", [f"constant-inputs = [{', '.join(map(str, constant))}]"] if constant else []
    for line in ATTRIBUTES.get(op, "").splitlines():
        if line.startswith("range = {"):
            ranges = f", {line.removeprefix('range = {').removesuffix('}').strip()}"
        else:
            lines.append(line)
    return (ranges, *lines)


def _kind(key: str, ranks: Mapping[str, int]) -> str:
    """Return the kind of data type whose rank cases speak for a signature: 16 bits as 8 bits where not measured."""
    if "FLOAT" in key:
        return "FLOAT32"
    return "INT16" if "INT16" in key and "INT16" in ranks else "INT8"


def _any(outcomes: Iterable[tuple[str, ...]]) -> bool:
    return any("htp" in outcome for outcome in outcomes)


def _row(
    op: str,
    placed: Mapping[str, Sequence[str]],
    ranks: Mapping[str, int],
    chips: Sequence[str],
    constant: Sequence[int],
) -> str:
    """Return the constraints of an op.

    Args:
        op: Its name.
        placed: The generations that run it, by signature.
        ranks: Highest rank that they run, by kind of data type (`_KINDS`); that of the table for kinds left out.
        chips: All generations that were asked, the oldest first.
        constant: Positions of inputs that must be constant.
    """
    oldest, *later = chips
    floats = {key for key in placed if "FLOAT" in key}
    kinds = [
        ("", [key for key in placed if key not in floats and oldest in placed[key]]),
        ("arch = [73, inf]", [key for key in placed if key not in floats and {*later} <= {*placed[key]}]),
        # v69 and some later SoCs are known, or feared, to lack half precision, and were not asked.
        ("soc_float16 = [1, 1]", [key for key in floats if {*later} <= {*placed[key]}]),
        ("arch = [68, 68]", [key for key in floats if oldest in placed[key]]),
    ]
    if kinds[0][1] == kinds[1][1]:
        kinds[1] = ("", [])
    order = {key: number for number, key in enumerate(placed)}
    tables = []
    limits = {key: min(_HIGHEST, ranks.get(_kind(key, ranks), _HIGHEST)) for key in placed if placed[key]}
    rank = max(limits.values(), default=_HIGHEST)
    for condition, keys in kinds:
        range_ = f"range = {{ {condition} }}, " if condition else ""
        for limit in sorted({limits[key] for key in keys}, reverse=True):
            listed = _list(sorted((key for key in keys if limits[key] == limit), key=order.__getitem__))
            own = f"max-rank = {limit}, " if limit < rank else ""
            tables.append(f"{{ {range_}{own}signatures = [{listed}] }}")
    if op == "PACK":
        # Scalars are packed by another builder, in every data type.
        pairs = _list(f"{dtype} -> {dtype}" for dtype in _SCALARS)
        tables.append(f"{{ range = {{ output_rank = [1, 1] }}, signatures = [{pairs}] }}")
    lines = [] if rank == _HIGHEST else [f"max-rank = {rank}"]
    if len(tables) == 1 and not tables[0].startswith("{ range"):
        lines.append(tables[0][2:-2])
    else:
        # A list of alternatives has at least two; one that is the same twice says no more.
        lines += ["any-of = [", *(f"  {table}," for table in (tables if len(tables) > 1 else tables * 2)), "]"]
    wide = [key for key in placed if placed[key] and "INT16" in key.split(" -> ")[0]]
    if op in _FUSED and wide:
        lines.append(_NO_RELU6 % _list(wide))
    if constant:
        lines.append(f"constant-inputs = [{', '.join(map(str, constant))}]")
    if op in ATTRIBUTES:
        lines.append(ATTRIBUTES[op])
    return "\n".join(lines)


def _list(texts: Iterable[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts)


_HEAD = """# Written by scripts/measure_qnn_ops with the compiler %(compiler)s: which data types, ranks and attributes
# of each op LiteRT's Qualcomm plugin and QNN's validation accept. Sources: see profile.toml.

[defaults]
dense-weights = true
max-rank = 5
"""

_FILE = """[file]
source = "qnn-measured"
refused_types = ["COMPLEX64", "RESOURCE", "STRING"]
variables = false
external_state = true
distinct_names = true
"""

#: Failures that depend on attributes.
_FAILING = """[[file.failing]]
ops = ["STRIDED_SLICE"]
source = "qnn-measured"
reason = "v68 validates steps above 1 in float and then cannot create the op"
fix = "quantize the op to int8, or compile for v73 and later only"
range = { arch = [68, 69], slice_stride = [2, inf] }
max-rank = 5
signatures = ["FLOAT32,INT32 -> FLOAT32"]

[[file.failing]]
ops = ["SUB"]
source = "qnn-measured"
reason = "v68 cannot create a subtraction in float whose result is multiplied"
fix = "build with edgepack, which adds the negative, or compile for v73 and later only"
range = { arch = [68, 69] }
max-rank = 5
signatures = ["FLOAT32 -> FLOAT32"]
read-by = ["MUL", "SQUARE"]

[[file.failing]]
ops = ["CUMSUM"]
source = "qnn-measured"
reason = "an exclusive or reverse sum in float is validated and then cannot be created"
fix = "compute it as a plain sum: reverse before and behind it, and subtract the input for an exclusive one"
max-rank = 4
signatures = ["FLOAT32,INT32 -> FLOAT32"]
any-of = [{ options = { exclusive = [true] } }, { options = { reverse = [true] } }]

[[file.failing]]
ops = ["SELECT_V2"]
source = "qnn-broadcasts"
reason = "a broadcast value in int16 that is an input is validated, and then the op cannot be created"
fix = "build with edgepack, which broadcasts it before, or give the values in the shape of the output"
max-rank = 5
signatures = ["BOOL,INT16 -> INT16"]
any-of = [{ range = { broadcast_then = [1, 1] } }, { range = { broadcast_else = [1, 1] } }]

[[file.failing]]
ops = ["BATCH_MATMUL"]
source = "qnn-products"
reason = "several products in int16 of two inputs, none transposed, are validated and cannot be created"
fix = "transpose the second input in the model and multiply with adj_y, or compute one of the two in the model"
range = { arch = [73, inf], entering_inputs = [2, 2], matrices = [2, inf] }
options = { adj_x = [false], adj_y = [false] }
max-rank = 5
signatures = ["INT16 -> INT16"]

[[file.failing]]
ops = ["LOGICAL_AND", "LOGICAL_OR"]
source = "qnn-masks"
reason = "v68 cannot create the logic of a comparison of floats and of another boolean"
fix = "quantize what is compared to int8, or compile for v73 and later only"
range = { arch = [68, 69], float_masks = [1, 1] }
max-rank = 5
signatures = ["BOOL -> BOOL"]

[[file.failing]]
ops = ["SELECT", "SELECT_V2"]
source = "qnn-masks"
reason = "v68 cannot create a selection of integers by a comparison of floats"
fix = "quantize what is compared to int8, or compile for v73 and later only"
range = { arch = [68, 69], float_masks = [1, 1] }
max-rank = 5
signatures = ["BOOL,INT8 -> INT8", "BOOL,UINT8 -> UINT8", "BOOL,INT16 -> INT16", "BOOL,INT32 -> INT32"]

[[file.uncertain]]
ops = ["SELECT_V2"]
source = "qnn-broadcasts"
reason = "a broadcast value in int8 that is an input is validated, and can be created in some models only"
fix = "build with edgepack, which broadcasts it before, or give the values in the shape of the output"
max-rank = 5
signatures = ["BOOL,INT8 -> INT8", "BOOL,UINT8 -> UINT8"]
any-of = [{ range = { broadcast_then = [1, 1] } }, { range = { broadcast_else = [1, 1] } }]

[[file.uncertain]]
ops = ["BATCH_MATMUL"]
source = "qnn-products"
reason = "several products in int16 with a SOFTMAX of them can be created for some shapes only"
fix = "reshape the products to two dimensions before the SOFTMAX"
range = { arch = [73, inf], matrices = [2, inf] }
max-rank = 5
signatures = ["INT16 -> INT16"]
read-by = ["SOFTMAX", "MUL"]
"""
