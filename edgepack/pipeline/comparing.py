"""Every scheme side by side, on the user's own model: what TensorFlow's optimization guide shows in its Table 1."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgepack.cache import key_of, sha256
from edgepack.errors import EdgepackError, UsageError
from edgepack.graph import read_model
from edgepack.pipeline.choice import resolve_targets
from edgepack.pipeline.describing import preprocess_for
from edgepack.pipeline.inputs import input_specs
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.runtime.layers import LayerError
from edgepack.runtime.metrics import Quality
from edgepack.runtime.timing import Latency
from edgepack.samples import SampleSet, lint, load_samples
from edgepack.schemes import SCHEMES, Needs, get_scheme


@dataclass
class ComparedScheme:
    """One scheme of the user's model.

    Attributes:
        scheme: Scheme id.
        tool: What wrote the file.
        bytes: Size of the file.
        gzip_bytes: Size compressed with gzip -9, as an app store ships it.
        quality: What was lost, None without samples.
        latency: Time on this machine, None when the file does not run here.
        layers: Error of each layer, empty without samples or for float files.
        targets: Target id -> summary of its check with the target's own wishes; only targets that take the scheme.
        reason: Why there is no file: data that was not given, a quantizer that refused.
        notes: What the quantizer said.
    """

    scheme: str
    tool: str = ""
    bytes: int = 0
    gzip_bytes: int = 0
    quality: Quality | None = None
    latency: Latency | None = None
    layers: list[LayerError] = field(default_factory=list)
    targets: dict[str, dict[str, int]] = field(default_factory=dict)
    reason: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` of `compare --json`."""
        return {
            "scheme": self.scheme,
            "tool": self.tool,
            "bytes": self.bytes,
            "gzip_bytes": self.gzip_bytes,
            "quality": None if self.quality is None else self.quality.to_json(),
            "latency": None if self.latency is None else {**asdict(self.latency), "where": "this machine"},
            "layers": [asdict(layer) for layer in self.layers],
            "targets": self.targets,
            "reason": self.reason,
            "notes": list(self.notes),
        }


@dataclass
class Comparison:
    """A whole comparison.

    Attributes:
        model: Name of the user's model.
        source: `{format, bytes, sha256}` of it.
        results: One entry per scheme that a target takes, in the order of `edgepack.schemes`.
        targets: Target ids that were compared, in the order given.
        notes: What was assumed or looks suspicious.
    """

    model: str
    source: dict[str, Any]
    results: list[ComparedScheme]
    targets: list[str]
    notes: list[str]


def compare(
    path: Path,
    targets: Sequence[str],
    options: ModelOptions | None = None,
    *,
    samples: str = "",
    evaluation: str = "",
    preprocess: str = "",
    progress: Progress = silent,
) -> Comparison:
    """Make every scheme that a target takes and hold them side by side.

    Args:
        path: The model; it must not be quantized yet.
        targets: Target ids, or `all`.
        options: How the model is read.
        samples: Source of representative samples; without them integer schemes are left out, with the reason.
        evaluation: Source of labelled samples; without them the samples measure.
        preprocess: `MEAN,STD` of pixels.
        progress: Told what is being done.

    Raises:
        UsageError: The model is quantized already, or a target is unknown.
        EdgepackError: The model or the samples cannot be read.
    """
    profiles = resolve_targets(targets)
    with Session(options or ModelOptions(), progress) as session:
        model, source = session.float_model(path)
        if model.quantized:
            raise UsageError(
                "the model is already quantized: there is nothing to compare",
                hint="give the .keras, SavedModel or float .tflite it was made from",
            )
        notes = list(model.notes)
        inputs = input_specs(model.tflite)
        pixels = preprocess_for(model.tflite, preprocess)
        calibration = load_samples(samples, inputs, preprocess=pixels) if samples else None
        measured = load_samples(evaluation, inputs, preprocess=pixels) if evaluation else calibration
        if calibration is not None:
            calibration = calibration.limited(500)
            notes.extend(lint(calibration, measured if evaluation else None))
        run = _Comparing(session, model.tflite, profiles, calibration, measured)
        wanted = [s for s in SCHEMES if any(profile.scheme_rule(s) is not None for profile in profiles)]
        results = [run.scheme(scheme) for scheme in wanted if get_scheme(scheme).needs is not Needs.LABELS]
        return Comparison(path.name, source, results, [profile.id for profile in profiles], notes)


class _Comparing:
    """What all schemes share."""

    def __init__(
        self,
        session: Session,
        tflite: bytes,
        profiles: Sequence[TargetProfile],
        calibration: SampleSet | None,
        measured: SampleSet | None,
    ) -> None:
        self.session = session
        self.tflite = tflite
        self.profiles = profiles
        self.samples = calibration
        self.measured = measured

    def scheme(self, scheme: str) -> ComparedScheme:
        entry = ComparedScheme(scheme)
        if get_scheme(scheme).needs is Needs.SAMPLES and self.samples is None:
            entry.reason = "needs samples (--samples)"
            return entry
        rules = {p.id: rule for p in self.profiles if (rule := p.scheme_rule(scheme)) is not None}
        try:
            data, entry.tool, entry.notes = self._file(next(iter(rules.values())))
        except EdgepackError as error:
            entry.reason = error.message
            return entry
        entry.bytes = len(data)
        entry.gzip_bytes = len(gzip.compress(data, 9, mtime=0))
        for profile in self.profiles:
            if profile.id in rules:
                entry.targets[profile.id] = self._placed(profile, rules[profile.id])
        if self.measured is not None:
            entry.quality = self.session.qualities(self.tflite, {scheme: data}, self.measured)[scheme]
            if get_scheme(scheme).is_integer:
                entry.layers = self._layers(data, self.measured)
        entry.latency = self.session.latency(data)
        return entry

    def _file(self, rule: SchemeRule) -> tuple[bytes, str, tuple[str, ...]]:
        calibration = None
        if get_scheme(rule.scheme).needs is Needs.SAMPLES:
            assert self.samples is not None
            calibration = self.session.calibration(self.tflite, self.samples)
        return self.session.quantized(self.tflite, rule, calibration, "")

    def _placed(self, profile: TargetProfile, rule: SchemeRule) -> dict[str, int]:
        from edgepack.compat import check

        return check(read_model(self._file(rule)[0]), profile).summary

    def _layers(self, data: bytes, samples: SampleSet) -> list[LayerError]:
        parts = {"reference": sha256(self.tflite), "model": sha256(data), "samples": samples.digest}
        key = key_of("layers", {**parts, "versions": self.session.versions})

        def compute() -> dict[str, bytes]:
            found = self.session.run_native("edgepack.runtime.layers:layer_errors", self.tflite, data, samples)
            return {"layers.json": json.dumps([asdict(layer) for layer in found]).encode()}

        return [LayerError(**fields) for fields in json.loads(self.session.cached(key, compute)["layers.json"])]
