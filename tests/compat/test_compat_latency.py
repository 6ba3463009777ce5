"""The latency of a model is an estimate with its error where a target has figures; elsewhere there is none."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.compat import check
from edgepack.compat.latency import ModelFeatures, OpFeatures, milliseconds
from edgepack.errors import ProfileError
from edgepack.graph import read_model
from edgepack.profiles import load_profile
from edgepack.profiles.registry import all_targets, get_target

ROOT = Path(__file__).resolve().parents[2]

#: Published milliseconds of Google's own files on USB 3 (scripts/latency_figures.csv).
PUBLISHED = {"mobilenet_v1_0.25_128_quant": 0.9, "mobilenet_v2_1.0_224_quant": 2.6}


@pytest.mark.parametrize("name", PUBLISHED)
def test_estimate_of_the_real_file_is_near_the_published_figure(shared_models: Path, name: str) -> None:
    """Google's int8 files, not those that the fit rebuilt, are estimated within the error that the profile promises."""
    profile = get_target("edgetpu")
    report = check(read_model((shared_models / "coral" / f"{name}.tflite").read_bytes()), profile)
    latency = report.estimates["latency"]
    assert profile.latency is not None
    usb = next(entry["ms"] for entry in latency["figures"] if entry["host"] == "usb3")
    assert abs(usb / PUBLISHED[name] - 1) <= profile.latency.error.most_within / 100
    assert latency["kind"] == "estimate"
    assert any(f"{usb:g} ms on USB 3" in note and "most within" in note for note in report.notes)


def test_ops_on_the_host_make_it_a_lower_bound(shared_models: Path) -> None:
    """The host's CPU was not measured: the figure is a bound, and the note says how many ops are missing from it."""
    data = (shared_models / "coral" / "deeplabv3_mnv2_dm05_pascal_quant.tflite").read_bytes()
    report = check(read_model(data), get_target("edgetpu"))
    hosted = report.summary["host"]
    assert hosted
    assert report.estimates["latency"]["kind"] == "lower-bound"
    assert any("at least" in note and f"the {hosted} op" in note for note in report.notes)


def test_targets_without_figures_show_none(shared_models: Path) -> None:
    """No latency is invented: only the Edge TPU has a latency model among the built-in targets."""
    assert [name for name, profile in all_targets().items() if profile.latency] == ["edgetpu"]
    data = (shared_models / "coral" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes()
    report = check(read_model(data), replace(get_target("edgetpu"), latency=None))
    assert "latency" not in report.estimates
    assert not any("atency" in note for note in report.notes)


def test_parameters_beyond_the_chip_take_the_bus() -> None:
    """Only the bytes that the chip does not keep take time, and the slowest of an op's three parts counts."""
    rule = get_target("edgetpu").latency
    assert rule is not None
    host = rule.hosts[0]
    small = ModelFeatures((OpFeatures("CONV_2D", parameters=1000), OpFeatures("CONV_2D", parameters=5000)), 0)
    fits, streams = (milliseconds(small, rule, host, kept) for kept in (6000, 2000))
    assert streams - fits == pytest.approx(4000 / host.parameter_bytes_per_ms)
    busy = ModelFeatures((OpFeatures("CONV_2D", macs=10**9, activations=10),), 0)
    assert milliseconds(busy, rule, host, 0) == pytest.approx(host.fixed_ms + rule.op_ms + 1e9 / rule.macs_per_ms)


def test_faults_of_a_latency_file_are_reported_together(tmp_path: Path) -> None:
    """A wrong constant, date and source are faults with their key, in one error with those of the profile."""
    for file in (ROOT / "targets" / "edgetpu").glob("*.toml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "latency.toml").read_text()
    rule = load_profile(tmp_path).latency
    assert rule is not None
    broken = text.replace('source = "coral-latency"', 'source = "nowhere"').replace(rule.fitted, "yesterday")
    lines = ["macs_per_ms = -1" if line.startswith("macs_per_ms") else line for line in broken.splitlines()]
    (tmp_path / "latency.toml").write_text("\n".join(lines))
    with pytest.raises(ProfileError) as caught:
        load_profile(tmp_path)
    for expected in ("nowhere", "yesterday", "macs_per_ms"):
        assert expected in caught.value.message
