"""The op tables are correct for files of the real converter: each op and rule with a supported and a refused layer.

`converter_layers.py` writes the files with TFLiteConverter, once for each version of that script.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.child import Worker
from edgepack.compat import check
from edgepack.findings import OpFinding, Placement, Report
from edgepack.graph import Model, read_model
from edgepack.profiles import TargetProfile, Variant, all_targets

pytestmark = pytest.mark.slow

VARIANTS = [(p.id, v.id) for p in all_targets().values() for v in p.variants]
#: Reasons that concern the op's neighbours, not the op.
NEIGHBOURS = ({"outside-partition"}, {"partition-too-small"})

#: Ops of the tables that TFLiteConverter does not write, and what it writes instead.
NEVER_WRITTEN = {
    "CUSTOM:Convolution2DTransposeBias": "MediaPipe's own",
    "CUSTOM:MaxPoolingWithArgmax2D": "MediaPipe's own",
    "CUSTOM:MaxUnpooling2D": "MediaPipe's own",
    "CUSTOM:Resampler": "MediaPipe's own",
    "CUSTOM:edgetpu-custom-op": "the Edge TPU compiler writes it",
    "DYNAMIC_UPDATE_SLICE": "from JAX",
    "EMBEDDING_LOOKUP": "GATHER",
    "EXPAND_DIMS": "RESHAPE",
    "L2_POOL_2D": "TensorFlow has no such layer",
    "LSTM": "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "RELU_0_TO_1": "RELU and MINIMUM",
    "SQUEEZE": "RESHAPE",
    "STABLEHLO_BROADCAST_IN_DIM": "from JAX and PyTorch",
    "STABLEHLO_CBRT": "from JAX and PyTorch",
    "STABLEHLO_CLAMP": "from JAX and PyTorch",
    "STABLEHLO_REMAINDER": "from JAX and PyTorch",
    "STABLEHLO_SHIFT_LEFT": "from JAX and PyTorch",
}

#: Ops that the converter writes, but in no form that the target supports.
NEVER_TAKEN = {
    ("android-gpu", "ml-drift", "LOGICAL_NOT"): "of BOOL, which no op on the GPU produces here",
    ("edgetpu", "", "TILE"): "version 3, above the compiler's parser",
    ("hexagon", "dsp-legacy", "NEG"): "stays float in an int8 file",
    ("hexagon", "htp", "FLOOR_MOD"): "of INT32, which the files here do not use",
}

#: Ops that no rule refuses in any file of the converter.
NEVER_REFUSED = {
    "DENSIFY": "reads constants only",
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "REDUCE_ALL", "REDUCE_ANY"), "of BOOL only"),
}

#: Constraint, target, variant, file, op, code of the reason.
REFUSED = [
    ("any-of", "hexagon", "htp", "CAST int64", "CAST", "dtype-float"),
    ("broadcast", "android-gpu", "legacy", "ADD ranks", "ADD", "broadcast"),
    ("constant-inputs", "edgetpu", "", "CONV_2D computed int8", "CONV_2D", "not-constant"),
    ("consumers", "android-gpu", "legacy", "LESS shown", "LESS", "consumer"),
    ("dtype-pairs", "android-gpu", "legacy", "CAST int64", "CAST", "dtype-pair"),
    ("dtypes", "edgetpu", "", "ADD", "ADD", "dtype-float"),
    ("dtypes", "edgetpu", "", "ADD int16", "ADD", "dtype"),
    ("dtypes", "edgetpu", "", "CONV_2D int16", "CONV_2D", "bias-dtype"),
    ("equal-quantities", "edgetpu", "", "CONV_2D dilated int8", "CONV_2D", "unequal"),
    ("exact-version", "hexagon", "dsp-legacy", "RELU", "RELU", "version"),
    ("forbidden-axes", "edgetpu", "", "MEAN batch int8", "MEAN", "forbidden-axis"),
    ("fused-activation", "edgetpu", "", "AVERAGE_POOL_2D relu int8", "AVERAGE_POOL_2D", "fused-activation"),
    ("max-effective-rank", "edgetpu", "", "ADD rank5 int8", "ADD", "rank-above-3"),
    ("max-rank", "android-gpu", "legacy", "ADD rank5", "ADD", "rank-above-4"),
    ("max-rank", "android-gpu", "ml-drift", "ADD deep", "ADD", "rank-above-5"),
    ("max-version", "android-gpu", "ml-drift", "TILE int8", "TILE", "version"),
    ("one-dimensional", "edgetpu", "", "FULLY_CONNECTED map int8", "FULLY_CONNECTED", "not-one-dimensional"),
    ("one-dimensional", "edgetpu", "", "SOFTMAX map int8", "SOFTMAX", "not-one-dimensional"),
    ("one-dimensional", "edgetpu", "", "PRELU map int8", "PRELU", "not-one-dimensional"),
    ("options", "android-gpu", "legacy", "MIRROR_PAD symmetric", "MIRROR_PAD", "option-value"),
    ("options", "cpu", "", "STRIDED_SLICE shrink", "STRIDED_SLICE", "option-value"),
    ("per-tensor-weights", "edgetpu", "", "FULLY_CONNECTED int8", "FULLY_CONNECTED", "per-channel-weights"),
    ("range", "edgetpu", "", "MEAN large int8", "MEAN", "limit-reduced-elements"),
    ("range", "edgetpu", "", "RESIZE_BILINEAR large int8", "RESIZE_BILINEAR", "limit-resize-factor-h"),
    ("range", "edgetpu", "", "SOFTMAX large int8", "SOFTMAX", "limit-input-elements"),
    ("range", "edgetpu", "", "STRIDED_SLICE int8", "STRIDED_SLICE", "limit-slice-stride"),
    ("range", "edgetpu", "", "TRANSPOSE large int8", "TRANSPOSE", "limit-input-elements"),
    ("range", "edgetpu", "", "UNIDIRECTIONAL_SEQUENCE_LSTM wide int8", "UNIDIRECTIONAL_SEQUENCE_LSTM", "limit-input-c"),
    ("range", "hexagon", "dsp-legacy", "CONV_2D stride4 int8", "CONV_2D", "limit-stride-h"),
    ("signatures", "hexagon", "htp", "FLOOR_MOD", "FLOOR_MOD", "dtype-float"),
    ("static-shapes", "edgetpu", "", "ADD open", "ADD", "dynamic-shape"),
    ("written-shapes", "hexagon", "htp", "PAD open", "PAD", "dynamic-shape"),
    ("when", "edgetpu", "", "CONCATENATION constant int8", "CONCATENATION", "nonzero-constant"),
    ("when", "edgetpu", "", "MEAN channels int8", "MEAN", "multiple"),
]

#: Constraints of the tables that no file of the converter breaks; hand-made graphs break them in test_compat_rules.py.
NEVER_BROKEN = {
    "dense-weights": "the converter puts a DENSIFY before each op with sparse weights",
    "min-runtime": "about the runtime version, not about the file",
    "per-tensor-data": "the converter quantizes activations per tensor only",
    "runtime-inputs-only": "the converter folds a layer of constants only",
    "same-dtype": "the inputs of TensorFlow's ops share one type",
}

#: Files that Google's analyzer calls compatible although the GPU delegate's source refuses an op: op and code.
ANALYZER = {
    "ADD open": ("ADD", "dynamic-shape"),
    "ADD ranks": ("ADD", "broadcast"),
    "ADD rank5": ("ADD", "rank-above-4"),
    "ARG_MAX": ("ARG_MAX", "op-not-supported"),
    "CAST int64": ("CAST", "dtype-pair"),
    "CONV_3D": ("CONV_3D", "op-not-supported"),
    "GATHER square": ("GATHER", "not-one-dimensional"),
    "LESS shown": ("LESS", "consumer"),
    "LOG_SOFTMAX": ("LOG_SOFTMAX", "op-not-supported"),
    "MIRROR_PAD symmetric": ("MIRROR_PAD", "option-value"),
    "SEGMENT_SUM": ("SEGMENT_SUM", "op-not-supported"),
    "STRIDED_SLICE shrink": ("STRIDED_SLICE", "option-value"),
    "TOPK_V2": ("TOPK_V2", "op-not-supported"),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("UNIDIRECTIONAL_SEQUENCE_LSTM", "op-not-supported"),
}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    """The converter's files, in pytest's cache."""
    script = Path(__file__).with_name("converter_layers.py")
    cached: Path = request.config.cache.mkdir(f"layers-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}")
    if not (cached / "analyzer.json").is_file():
        with Worker(writable=[cached]) as worker:
            worker.call("converter_layers:write", str(cached), timeout=600)
    return cached


@pytest.fixture(scope="module")
def layers(folder: Path) -> dict[str, Model]:
    """Name -> model."""
    return {path.stem: read_model(path) for path in sorted(folder.glob("*.tflite"))}


def _checks(layers: dict[str, Model], profile: TargetProfile, variant: Variant) -> Iterator[Report]:
    # The first SoC computes in half precision, the second does not: only one of them supports a float op.
    chips = ("SM8550", "SM8635") if variant.id == "htp" else ("",)
    for model in layers.values():
        for chip in chips:
            yield check(model, profile, variant=variant.id, soc=chip)


def _codes(finding: OpFinding) -> set[str]:
    return {reason.code for reason in finding.reasons}


@pytest.mark.parametrize(("target", "variant"), VARIANTS)
def test_each_op_is_taken_and_refused_in_some_form(layers: dict[str, Model], target: str, variant: str) -> None:
    """Each op of a table has a layer that the target supports and one that a rule of its row refuses."""
    profile = all_targets()[target]
    chosen = next(entry for entry in profile.variants if entry.id == variant)
    supported, refused = set(), set()
    for report in _checks(layers, profile, chosen):
        for finding in report.ops:
            is_supported = finding.placement is Placement.ACCELERATOR or _codes(finding) in NEIGHBOURS
            (supported if is_supported else refused).add(finding.op)
    table = {op for op in chosen.ops.ops if op not in NEVER_WRITTEN}
    never = {op for where, form, op in NEVER_TAKEN if (where, form) == (target, variant)}
    assert table - supported == never
    assert {op for op in table - refused if chosen.ops.ops[op].constraints and op not in NEVER_REFUSED} == set()


@pytest.mark.parametrize(("constraint", "target", "variant", "name", "op", "code"), REFUSED)
def test_each_rule_refuses_a_real_layer(
    layers: dict[str, Model], constraint: str, target: str, variant: str, name: str, op: str, code: str
) -> None:
    """A rule reports its code for the converter's form of a layer; another form is supported (see above)."""
    profile = all_targets()[target]
    table = next(entry for entry in profile.variants if entry.id == variant).ops.ops
    assert constraint in table[op].constraints
    report = check(layers[name], profile, variant=variant, soc="SM8550" if variant == "htp" else "")
    assert any(finding.op == op and code in _codes(finding) for finding in report.ops), report.ops


def test_each_rule_of_the_tables_has_a_real_layer() -> None:
    """Every constraint of a built-in table has a refused file, or an entry in NEVER_BROKEN that says why not."""
    used = {
        constraint
        for profile in all_targets().values()
        for variant in profile.variants
        for rule in variant.ops.ops.values()
        for constraint in rule.constraints
    }
    assert used == {case[0] for case in REFUSED} | set(NEVER_BROKEN)


@pytest.mark.parametrize("name", ANALYZER)
def test_refuses_what_the_analyzer_lets_through(folder: Path, layers: dict[str, Model], name: str) -> None:
    """Where Google's analyzer says compatible and the delegate refuses an op, the check reports it with the reason."""
    assert json.loads((folder / "analyzer.json").read_text())[name] is True
    op, code = ANALYZER[name]
    report = check(layers[name], all_targets()["android-gpu"], variant="legacy")
    assert code in {entry for finding in report.ops if finding.op == op for entry in _codes(finding)}


def test_never_refuses_what_the_analyzer_refuses_alone(folder: Path, layers: dict[str, Model]) -> None:
    """For every file that the analyzer warns about, the check has a reason as well."""
    verdicts = json.loads((folder / "analyzer.json").read_text())
    warned = [name for name, compatible in verdicts.items() if not compatible]
    for name in warned:
        report = check(layers[name], all_targets()["android-gpu"], variant="legacy")
        assert any(finding.reasons for finding in report.ops), name
