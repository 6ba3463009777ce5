"""check(): placements, reasons, partitions and notes, on hand-network graphs and on real files."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from compat_graphs import ints, model, one_op, tensor, weights

from edgepack.compat import check
from edgepack.compat.partition import Group, choose, partition
from edgepack.errors import UsageError
from edgepack.findings import Placement
from edgepack.graph import Graph, Model, read_model
from edgepack.profiles import OpRule, PartitionRule, TargetProfile, all_targets, get_target

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def edgetpu() -> TargetProfile:
    return get_target("edgetpu")


@pytest.fixture(scope="module")
def gpu() -> TargetProfile:
    return get_target("android-gpu")


@pytest.fixture
def coral(shared_models: Path) -> Path:
    return shared_models / "coral"


def pairs(coral: Path) -> Iterator[tuple[str, dict[str, object]]]:
    yield from json.loads((coral / "expected.json").read_text()).items()


def codes(report: object, index: int) -> list[str]:
    return [reason.code for reason in report.ops[index].reasons]  # type: ignore[attr-defined]


def chain(*labels: str, dtype: str = "INT8") -> Model:
    ops = [(label, [i], [i + 1], {}) for i, label in enumerate(labels)]
    return model(ops, [tensor(dtype=dtype) for _ in range(len(labels) + 1)], inputs=[0], outputs=[len(labels)])


def test_places_every_op_as_the_real_compiler_did(coral: Path, edgetpu: TargetProfile) -> None:
    """On every pair of a model and its compiled file, the check's placement equals the compiler's, op for op."""
    wrong = {}
    for name, expected in pairs(coral):
        report = check(read_model(coral / name), edgetpu)
        ours = [finding.index for finding in report.ops if finding.placement is Placement.ACCELERATOR]
        if ours != expected["mapped_indices"]:
            wrong[name] = ours
    assert wrong == {}


def test_every_op_off_the_accelerator_says_why(coral: Path) -> None:
    """On real models and all targets, an op has reasons exactly when it is not on the accelerator."""
    for name, _ in pairs(coral):
        network = read_model(coral / name)
        for profile in all_targets().values():
            for variant in profile.variants:
                for finding in check(network, profile, variant=variant.id).ops:
                    assert bool(finding.reasons) == (finding.placement is not Placement.ACCELERATOR), (name, finding)
                    assert all(reason.fix for reason in finding.reasons)


def test_answers_fast(coral: Path) -> None:
    """A check of a 70-op model takes less than 0.3 s on every target."""
    network = read_model(coral / "deeplabv3_mnv2_dm05_pascal_quant.tflite")
    for profile in all_targets().values():
        start = time.process_time()
        check(network, profile)
        assert time.process_time() - start < 0.3


def test_names_the_op_that_cuts_others_off(coral: Path, edgetpu: TargetProfile) -> None:
    """The reason of a supported op that is cut off names the op upstream that runs elsewhere."""
    report = check(read_model(coral / "deeplabv3_mnv2_dm05_pascal_quant.tflite"), edgetpu)
    assert codes(report, 63) == ["limit-resize-factor-h", "limit-resize-factor-w"]
    assert codes(report, 66) == ["outside-partition"]
    assert "op 63 (RESIZE_BILINEAR)" in report.ops[66].reasons[0].message


def test_a_compiled_file_is_reported_as_such(coral: Path, edgetpu: TargetProfile) -> None:
    """A file compiled by edgetpu_compiler runs on the Edge TPU and nowhere else."""
    network = read_model(coral / "mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    report = check(network, edgetpu)
    assert report.ops[0].placement is Placement.ACCELERATOR
    assert report.compatible
    assert any("was compiled by Coral's edgetpu_compiler" in note for note in report.notes)
    elsewhere = check(network, get_target("cpu"))
    assert (elsewhere.compatible, codes(elsewhere, 0)) == (False, ["compiled-elsewhere"])


def test_a_float_file_is_told_to_quantize(edgetpu: TargetProfile) -> None:
    """On an integer-only target every op of a float file has the reason dtype-float, with the command to quantize."""
    report = check(chain("LOGISTIC", "ARG_MAX", "TANH", dtype="FLOAT32"), edgetpu)
    for finding in report.ops:
        assert finding.placement is Placement.HOST
        assert "dtype-float" in codes(report, finding.index)
        assert any("edgepack build" in reason.fix for reason in finding.reasons)


def test_an_open_batch_is_no_dynamic_shape(shared_models: Path, edgetpu: TargetProfile) -> None:
    """MLPerf Tiny's int8 reference for keyword spotting leaves its batch open and still runs on the Edge TPU."""
    report = check(read_model(shared_models / "mlperf-tiny" / "kws_reference_int8.tflite"), edgetpu)
    assert report.summary == {"total": 13, "accelerator": 13, "host": 0, "unsupported": 0, "partitions": 1}
    assert any("leaves the batch size open" in note for note in report.notes)


@pytest.mark.parametrize(
    ("label", "placement", "code", "compatible"),
    [
        ("CUSTOM:DISPATCH_OP", Placement.UNSUPPORTED, "compiled-elsewhere", False),
        ("CUSTOM:ethos-u", Placement.UNSUPPORTED, "compiled-elsewhere", False),
        ("CUSTOM:FlexErf", Placement.UNSUPPORTED, "flex-op", False),
        ("CUSTOM:MyOp", Placement.UNSUPPORTED, "custom-op", False),
        ("CUSTOM:TFLite_Detection_PostProcess", Placement.HOST, "custom-op-registered", True),
        ("CUSTOM:PosenetDecoderOp", Placement.UNSUPPORTED, "custom-op-elsewhere", False),
        ("BUILTIN_240", Placement.UNSUPPORTED, "missing-kernel", False),
        ("ARG_MAX", Placement.HOST, "op-not-supported", True),
        ("WHILE", Placement.HOST, "op-not-supported", True),
    ],
)
def test_ops_outside_the_table(
    edgetpu: TargetProfile, label: str, placement: Placement, code: str, compatible: bool
) -> None:
    """An op without a row runs on the host, or nowhere if no runtime has it; only the latter makes the model unfit."""
    report = check(chain("LOGISTIC", label), edgetpu)
    assert report.ops[0].placement is Placement.ACCELERATOR
    assert (report.ops[1].placement, codes(report, 1), report.compatible) == (placement, [code], compatible)


def test_int4_activations_run_nowhere() -> None:
    """The runtime has no kernel for 4-bit activations."""
    report = check(chain("TILE", dtype="INT4"), get_target("cpu"))
    assert (report.ops[0].placement, codes(report, 0)) == (Placement.UNSUPPORTED, ["missing-kernel"])


def test_denied_fallback_makes_a_host_op_incompatible(edgetpu: TargetProfile) -> None:
    """A profile that denies host fallback refuses a model with one host op and accepts one without."""
    strict = dataclasses.replace(edgetpu, fallback="deny")
    assert not check(chain("LOGISTIC", "ARG_MAX"), strict).compatible
    assert check(chain("LOGISTIC", "TANH"), strict).compatible


def test_one_op_the_parser_does_not_know_stops_the_whole_file(edgetpu: TargetProfile) -> None:
    """Nothing is compiled when the parser refuses one op, and the reason of every other op names it."""
    filters = weights((6, 3, 3, 2))
    grouped = model(
        [("LOGISTIC", [0], [1], {}), ("CONV_2D", [1, 2], [3], {"version": 6, "dilation_h": 1, "dilation_w": 1})],
        [tensor(), tensor(), filters, tensor()],
    )
    report = check(grouped, edgetpu)
    assert report.count(Placement.ACCELERATOR) == 0
    assert (codes(report, 0), codes(report, 1)) == (["compile-refused"], ["parser-version"])
    assert "op 1 (CONV_2D)" in report.ops[0].reasons[0].message
    newer = check(chain("LOGISTIC", "GELU"), edgetpu)
    assert codes(newer, 1) == ["op-not-supported", "builtin-code"]


def test_dynamic_shapes_stop_the_edgetpu_compiler(edgetpu: TargetProfile) -> None:
    """An open image size is a reason of the model, and nothing is compiled."""
    dynamic = tensor(signature=(1, -1, 8, 4))
    report = check(model([("LOGISTIC", [0], [1], {})], [dynamic, dynamic], inputs=[0], outputs=[1]), edgetpu)
    assert report.count(Placement.ACCELERATOR) == 0
    assert [reason.code for reason in report.model_reasons] == ["dynamic-shape"]


def test_model_reasons(edgetpu: TargetProfile) -> None:
    """Batch, several subgraphs and a newer min_runtime_version are reasons of the model."""
    image = tensor((4, 1, 1, 4))
    network = model(
        [("LOGISTIC", [0], [1], {})], [image, image], inputs=[0], metadata={"min_runtime_version": b"2.9.0\0\0"}
    )
    network = dataclasses.replace(network, graphs=(network.main, Graph("body", (), (), (), ())))
    codes_found = {reason.code for reason in check(network, edgetpu).model_reasons}
    assert codes_found == {"batch", "several-subgraphs", "min-runtime-version"}


@pytest.mark.parametrize(("version", "placement"), [(None, "accelerator"), (14, "accelerator"), (12, "host")])
def test_runtime_version_selects_rules(edgetpu: TargetProfile, version: int | None, placement: str) -> None:
    """PACK needs runtime 13."""
    packed = one_op("PACK", [tensor((1, 4)), tensor((1, 4))], [tensor((1, 2, 4))], axis=1)
    assert check(packed, edgetpu, runtime_version=version).ops[0].placement == placement


def test_gpu_takes_the_largest_group_and_says_what_the_cut_costs(gpu: TargetProfile) -> None:
    """The GPU delegate gets one partition; the other runs on the host, and its reason names the op between."""
    report = check(chain("TANH", "TOPK_V2", "LOGISTIC", "TANH", "ABS", dtype="FLOAT32"), gpu)
    assert [str(finding.placement) for finding in report.ops] == ["host", "host", *["accelerator"] * 3]
    assert codes(report, 0) == ["outside-partition"]
    assert "op 1 (TOPK_V2)" in report.ops[0].reasons[0].message
    assert report.partitions == 1
    assert report.estimates["supported_groups"] == 2
    assert any("each cut" in note for note in report.notes)


def test_gpu_refuses_what_googles_analyzer_lets_through(gpu: TargetProfile) -> None:
    """A shrink-axis STRIDED_SLICE and SEGMENT_SUM pass Google's analyzer and do not run on the GPU."""
    image = tensor(dtype="FLOAT32")
    sliced = one_op(
        "STRIDED_SLICE", [image, ints(0, 0, 0, 0), ints(1, 8, 8, 4), ints(1, 1, 1, 1)], [image], shrink_axis_mask=1
    )
    assert codes(check(sliced, gpu), 0) == ["option-value"]
    assert codes(check(chain("SEGMENT_SUM", dtype="FLOAT32"), gpu), 0) == ["op-not-supported"]


def test_variants_by_id_and_by_chip() -> None:
    """A SoC selects its variant; an unknown one, or one of another variant, is refused with the known ones."""
    hexagon = get_target("hexagon")
    network = chain("NEG", dtype="UINT8")
    assert (check(network, hexagon).variant, check(network, hexagon).compatible) == ("htp", True)
    assert check(network, hexagon, soc="sm8150").variant == "dsp-legacy"
    assert check(network, hexagon, soc="SM8550").ops[0].placement is Placement.ACCELERATOR
    assert check(network, hexagon, variant="dsp-legacy").ops[0].placement is Placement.HOST
    for arguments in ({"variant": "dsp"}, {"soc": "SM9999"}, {"variant": "htp", "soc": "SM8150"}):
        with pytest.raises(UsageError):
            check(network, hexagon, **arguments)


def test_float16_is_a_matter_of_the_chip() -> None:
    """A float op runs on SoCs whose compiler takes it, not on others, and not when no SoC is specified."""
    hexagon = get_target("hexagon")
    network = chain("EXP", dtype="FLOAT32")
    placed = {soc: str(check(network, hexagon, soc=soc).ops[0].placement) for soc in ("SM8550", "SM8635", "SM8350", "")}
    assert placed == {"SM8550": "accelerator", "SM8635": "host", "SM8350": "accelerator", "": "host"}


def test_small_groups_are_left_behind() -> None:
    """The legacy Hexagon delegate runs groups of at least two ops."""
    hexagon = get_target("hexagon")
    assert codes(check(chain("LOGISTIC"), hexagon, variant="dsp-legacy"), 0) == ["partition-too-small"]
    report = check(chain("LOGISTIC", "SUM", "TANH", "TANH"), hexagon, variant="dsp-legacy")
    assert [codes(report, i) for i in range(4)] == [["partition-too-small"], ["op-not-supported"], [], []]


def test_int16_activations_run_on_the_builtin_kernels() -> None:
    """XNNPACK has no int16 kernels, and the model still runs on the built-in ones."""
    report = check(chain("LOGISTIC", "TANH", dtype="INT16"), get_target("cpu"))
    assert [str(finding.placement) for finding in report.ops] == ["host", "host"]
    assert report.compatible


@pytest.mark.parametrize(
    ("edges", "supported", "expected"),
    [
        # A host op in front does not block the block behind it.
        ([(0, 1), (1, 2)], [False, True, True], [(False, (0,)), (True, (1, 2))]),
        # A parallel branch joins the group although a host op precedes it in the file.
        ([(0, 1), (0, 2), (2, 3)], [True, False, True, True], [(True, (0, 2, 3)), (False, (1,))]),
        # An op that depends on a host op is in a later group.
        ([(0, 1), (1, 2), (0, 2)], [True, False, True], [(True, (0,)), (False, (1,)), (True, (2,))]),
        # Two source ops of different kinds: the first in the file decides.
        ([(0, 2), (1, 2)], [False, True, True], [(False, (0,)), (True, (1, 2))]),
        # File order is not execution order.
        ([(1, 0)], [True, False], [(False, (1,)), (True, (0,))]),
    ],
)
def test_partition_by_data_dependency(
    edges: list[tuple[int, int]], supported: list[bool], expected: list[tuple[bool, tuple[int, ...]]]
) -> None:
    """A group collects the ready ops of one kind until none is left; then the other kind follows."""
    ops = [("ADD", [a for a, b in edges if b == i], [i], {}) for i in range(len(supported))]
    graph = model(ops, [tensor() for _ in supported]).main
    assert partition(graph, supported) == [Group(*group) for group in expected]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PartitionRule("first"), [(0,)]),
        (PartitionRule("first", min_ops=2), [(2, 3, 4)]),
        (PartitionRule("largest"), [(2, 3, 4)]),
        (PartitionRule("largest", max_partitions=2), [(2, 3, 4), (6, 7)]),
        (PartitionRule("largest", max_partitions=0), [(0,), (2, 3, 4), (6, 7)]),
        (PartitionRule("every"), [(0,), (2, 3, 4), (6, 7)]),
    ],
)
def test_strategies(rule: PartitionRule, expected: list[tuple[int, ...]]) -> None:
    """`first`, `largest` and `every` select from the supported groups."""
    kinds = [True, False, True, True, True, False, True, True]
    groups = partition(chain(*["ADD"] * 8).main, kinds)
    assert [group.ops for group in choose(groups, rule)] == expected


def test_a_cyclic_file_is_answered(edgetpu: TargetProfile) -> None:
    """Ops that wait for each other run on the host, with a reason, and the check ends."""
    network = model([("TANH", [1], [0], {}), ("TANH", [0], [1], {})], [tensor(), tensor()])
    report = check(network, edgetpu)
    assert report.count(Placement.ACCELERATOR) == 0
    assert all(finding.reasons for finding in report.ops)


def test_ten_thousand_ops(edgetpu: TargetProfile) -> None:
    """A very long model is checked in seconds, even when most of it is cut off."""
    labels = ["TANH", "ARG_MAX"] + ["TANH"] * 9_998
    start = time.process_time()
    report = check(chain(*labels), edgetpu)
    assert time.process_time() - start < 5
    assert report.summary["accelerator"] == 1


def test_rows_of_a_third_party_are_enough(edgetpu: TargetProfile) -> None:
    """A row for a custom op is enough to support it; no code is needed."""
    row = OpRule("CUSTOM:MyOp", {"dtypes": {"data": ["INT8"]}}, "x")
    ops = dataclasses.replace(edgetpu.ops, ops={**edgetpu.ops.ops, row.op: row})
    variant = dataclasses.replace(edgetpu.variants[0], ops=ops)
    mine = dataclasses.replace(edgetpu, variants=(variant,))
    assert check(chain("CUSTOM:MyOp"), mine).ops[0].placement is Placement.ACCELERATOR


def test_an_op_only_the_accelerator_has_runs_nowhere_outside_it(gpu: TargetProfile) -> None:
    """A custom op of the GPU delegate runs on the GPU, and nowhere when another partition is delegated."""
    label = "CUSTOM:MyGpuOp"
    variant = gpu.variants[0]
    ops = dataclasses.replace(variant.ops, ops={**variant.ops.ops, label: OpRule(label, {}, "x")})
    mine = dataclasses.replace(gpu, variants=(dataclasses.replace(variant, ops=ops),))
    assert check(chain(label, dtype="FLOAT32"), mine).compatible
    report = check(chain(label, "TOPK_V2", "TANH", "TANH", dtype="FLOAT32"), mine)
    assert (str(report.ops[0].placement), codes(report, 0)) == ("unsupported", ["outside-partition"])
    assert not report.compatible


def test_reports_are_json(edgetpu: TargetProfile) -> None:
    """A report has the shape of the contract and survives JSON."""
    document = json.loads(json.dumps(check(chain("TANH", "ARG_MAX"), edgetpu).to_json()))
    assert document["summary"] == {"total": 2, "accelerator": 1, "host": 1, "unsupported": 0, "partitions": 1}
    assert set(document["ops"][1]["reasons"][0]) == {"code", "message", "fix"}


def test_constants_of_the_model_are_not_changed(edgetpu: TargetProfile) -> None:
    """A check is pure: the same model gives the same report twice."""
    network = one_op("ADD", [tensor(), weights((1, 1, 1, 4))], [tensor()])
    before = np.array(network.main.tensors[1].raw)
    assert check(network, edgetpu) == check(network, edgetpu)
    assert np.array_equal(before, network.main.tensors[1].raw)


@pytest.mark.parametrize("target", ["android-gpu", "cpu", "edgetpu", "hexagon"])
def test_malformed_ops_are_answered(target: str) -> None:
    """Ops with too few inputs, scalars, absent tensors or odd options are placed; nothing crashes."""
    profile = get_target(target)
    odd = [
        tensor(()),
        tensor((0,)),
        tensor((1, 8, 8, 4), "FLOAT32"),
        ints(9, -9),
        tensor((2, 2), "INT32"),
        tensor((5,), data=[1]),
    ]
    for variant in profile.variants:
        for label in variant.ops.ops:
            for inputs in ((), (-1,), (0,), (1, 0), (2, 3, -1), (3, 3, 3, 3), (0, 4, 4, 4), (5, 5, 5), (2, 5)):
                for options in ({}, {"axis": 99, "squeeze_dims": [7], "padding": None, "stride_w": "x"}):
                    network = model([(label, inputs, [2], options)], odd, inputs=[0], outputs=[2])
                    assert check(network, profile, variant=variant.id).summary["total"] == 1


def test_on_the_cpu_nothing_has_to_be_done() -> None:
    """An op without a fast kernel runs on the built-in ones: the fix says so and demands no other layer or target."""
    report = check(chain("LOGISTIC", "ARG_MAX", "TANH"), get_target("cpu"))
    assert (report.compatible, codes(report, 1)) == (True, ["built-in-kernel"])
    assert report.ops[1].reasons[0].fix.startswith("no action needed")
    typed = check(chain("LOGISTIC", dtype="INT16"), get_target("cpu")).ops[0].reasons[0]
    assert (typed.code, typed.fix.startswith("no action needed: the built-in kernels run it")) == ("dtype", True)
    flex = check(chain("CUSTOM:FlexErf"), get_target("cpu")).ops[0].reasons[0]
    assert "no action needed" not in flex.fix
