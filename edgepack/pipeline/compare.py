"""Every scheme side by side, on the user's own model: what TensorFlow's optimization guide shows in its Table 1."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgepack.cache import key_of, sha256
from edgepack.errors import EdgepackError, UsageError
from edgepack.graph import read_model
from edgepack.pipeline.model_info import preprocess_for
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.pipeline.session import Session
from edgepack.pipeline.train import event_text, labelled, require_trainable, train_model
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.registry import resolve_targets
from edgepack.runtime.layers import LayerError
from edgepack.runtime.metrics import Quality
from edgepack.runtime.timing import Latency
from edgepack.samples import SampleSet, lint, load_samples
from edgepack.samples.specs import input_specs
from edgepack.schemes import SCHEMES, Needs, get_scheme
from edgepack.train import TrainOptions
from edgepack.train.report import gzip_size

#: What --train adds: (recipe, share of zeros, different weights per layer), as on the ladder.
TRAINED = (("qat", 0.0, 0), ("prune+qat", 0.5, 0), ("cluster+qat", 0.0, 16), ("prune+cluster+qat", 0.8, 16))


@dataclass
class ComparedScheme:
    """One scheme of the user's model, or one recipe of training.

    Attributes:
        scheme: Scheme id; for zeros and clusters before quantization-aware training the recipe, `prune+qat`.
        tool: What wrote the file.
        bytes: Size of the file.
        gzip_bytes: Size compressed with gzip -9, as an app store ships it.
        quality: What was lost, None without samples.
        latency: Time on this machine, None when the file does not run here.
        layers: Error of each layer, empty without samples or for float files.
        targets: Target id -> summary of its check with the target's own wishes; only targets that take the scheme.
        accepted: Targets that run the file, as far as the check knows.
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
    accepted: list[str] = field(default_factory=list)
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
            "accepted": self.accepted,
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
    train: str = "",
    epochs: int = 0,
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
        train: Source of labelled samples to train on; without them training is left out, with the reason.
        epochs: Epochs of each stage of training, 0 for the default.
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
        training = labelled(train, model.tflite, pixels) if train else None
        if training is not None:
            require_trainable(path)
        run = _Comparing(session, model.tflite, profiles, calibration, measured)
        wanted = [s for s in SCHEMES if any(profile.scheme_rule(s) is not None for profile in profiles)]
        results = [run.scheme(scheme) for scheme in wanted if get_scheme(scheme).needs is not Needs.LABELS]
        if "int8-qat" in wanted:
            wish = TrainOptions(epochs=epochs, allow_code=session.options.allow_code)
            results += [run.trained(path, training, wish, *recipe) for recipe in TRAINED[: None if train else 1]]
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
        rules = self._rules(scheme)
        try:
            data, entry.tool, entry.notes = self._file(next(iter(rules.values())))
        except EdgepackError as error:
            entry.reason = error.message
            return entry
        self._fill(entry, data, {target: self._file(rule)[0] for target, rule in rules.items()})
        if self.measured is not None and get_scheme(scheme).is_integer:
            entry.layers = self._layers(data, self.measured)
        return entry

    def trained(
        self, path: Path, data: SampleSet | None, options: TrainOptions, recipe: str, sparsity: float, clusters: int
    ) -> ComparedScheme:
        """Train a recipe; the error of its layers is none of quantization's alone and is left out."""
        entry = ComparedScheme("int8-qat" if recipe == "qat" else recipe)
        if data is None:
            entry.reason = "needs labelled samples (--train)"
            return entry
        rules = self._rules("int8-qat")
        # One training serves all: integer inputs and outputs are the stricter wish.
        rule = next((one for one in rules.values() if one.io != "FLOAT32"), next(iter(rules.values())))
        wish = replace(options, sparsity=sparsity or options.sparsity, clusters=clusters or options.clusters)
        self.session.progress(f"training {recipe} on {len(data)} labelled samples")
        try:
            made = train_model(
                self.session,
                path,
                self.tflite,
                data,
                recipe,
                wish,
                rule=rule,
                on_event=lambda event: self.session.progress(event_text(event)),
            )
        except EdgepackError as error:
            entry.reason = error.message
            return entry
        words = [f"{100 * sparsity:g} % zeros"] * bool(sparsity) + [f"{clusters} clusters"] * bool(clusters)
        entry.tool, entry.notes = "tensorflow-model-optimization", (*([", ".join(words)] if words else ()), *made.notes)
        self._fill(entry, made.tflite, dict.fromkeys(rules, made.tflite))
        return entry

    def _rules(self, scheme: str) -> dict[str, SchemeRule]:
        return {p.id: rule for p in self.profiles if (rule := p.scheme_rule(scheme)) is not None}

    def _fill(self, entry: ComparedScheme, data: bytes, files: Mapping[str, bytes]) -> None:
        """Measure a file, and place the ops of the file of each target that takes it."""
        from edgepack.compat import check

        entry.bytes, entry.gzip_bytes = len(data), gzip_size(data)
        for profile in self.profiles:
            if profile.id in files:
                report = check(read_model(files[profile.id]), profile)
                entry.targets[profile.id] = report.summary
                if report.compatible:
                    entry.accepted.append(profile.id)
        if self.measured is not None:
            entry.quality = self.session.qualities(self.tflite, {entry.scheme: data}, self.measured)[entry.scheme]
        entry.latency = self.session.latency(data)

    def _file(self, rule: SchemeRule) -> tuple[bytes, str, tuple[str, ...]]:
        calibration = None
        if get_scheme(rule.scheme).needs is Needs.SAMPLES:
            assert self.samples is not None
            calibration = self.session.calibration(self.tflite, self.samples)
        return self.session.quantized(self.tflite, rule, calibration, "")

    def _layers(self, data: bytes, samples: SampleSet) -> list[LayerError]:
        parts = {"reference": sha256(self.tflite), "model": sha256(data), "samples": samples.digest}
        key = key_of("layers", {**parts, "versions": self.session.versions})

        def compute() -> dict[str, bytes]:
            found = self.session.run_native("edgepack.runtime.layers:layer_errors", self.tflite, data, samples)
            return {"layers.json": json.dumps([asdict(layer) for layer in found]).encode()}

        return [LayerError(**fields) for fields in json.loads(self.session.cached(key, compute)["layers.json"])]
