"""Whether the samples' values are those that the model was trained with: what the model itself says, and trials.

A model that gets pixels of another normalization than in training runs without an error and guesses. Its first ops tell
whether it scales pixels itself; labelled samples tell it for certain.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgepack.convert import FloatModel
from edgepack.errors import UnfitModelError
from edgepack.graph import Model, read_model
from edgepack.graph.leading import leading_affine
from edgepack.graph.metadata import ModelInfo
from edgepack.pipeline.jobs import COUNT_HITS
from edgepack.pipeline.model_info import is_image, own_metadata, pixel_rule
from edgepack.pipeline.options import BuildOptions
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.runtime.class_scores import output_kinds
from edgepack.runtime.input_values import Variant
from edgepack.runtime.runner import model_inputs, model_outputs
from edgepack.samples import Preprocess, SampleSet, SampleSource, load_samples
from edgepack.samples.specs import input_specs

#: Reads a source of samples with a normalization of images, None for the default.
Load = Callable[[SampleSource, Preprocess | None], SampleSet]

#: Value of `--preprocess` that takes the normalization with which the model works.
AUTO = "auto"

#: Most samples of a trial: enough to tell a working model from one that guesses, a second for a large model.
_SAMPLES = 64

#: Share of right answers below which other values are tried: ImageNet models have 0.7 and more. Where nobody said which
#: normalization is right, they are tried below the higher one. A trial is a dozen runs of the model per sample.
_DOUBTFUL, _CERTAIN = 0.6, 0.9

#: Probability up to which a result is not put down to chance.
_SIGNIFICANCE = 0.01

#: Normalizations that image models are trained with, by what people call them. Those of ImageNet are the modes "tf",
#: "torch" and "caffe" of Keras (keras/src/applications/imagenet_utils.py); 255,-255 is white ink on black paper.
_USUAL = {
    "0..1": Preprocess((0.0,), (255.0,)),
    "-1..1": Preprocess((127.5,), (127.5,)),
    "0..255": Preprocess((0.0,), (1.0,)),
    "ImageNet mean and deviation": Preprocess((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "ImageNet mean": Preprocess((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    "inverted": Preprocess((255.0,), (-255.0,)),
}

#: Span of a layer's input that networks are trained with: 1 for 0..1, 2 for -1..1, about 4.5 for ImageNet's deviation.
_SPAN = (0.5, 20.0)

#: Offsets of a model that subtracts the mean of its pixels without scaling: those of dark and of bright images.
_MEANS = (50.0, 200.0)


def pixels_by_arithmetic(float_model: FloatModel, model: Model) -> Preprocess | None:
    """Return the normalization that a model leaves to the caller, read from its first ops; None when they say nothing.

    Rescaling(1/255) or Normalization on pixels means that the model takes pixels of 0..255 as they are.

    Args:
        float_model: The model and what its original does to its inputs first.
        model: The same as a graph.
    """
    tensors = [index for index in model.main.inputs if is_image(model.main.tensors[index].shape)]
    if len(tensors) != 1 or not model.main.tensors[tensors[0]].is_float:
        return None
    (position,) = (number for number, index in enumerate(model.main.inputs) if index == tensors[0])
    known = float_model.arithmetic.get(model.input_names()[position])
    if known is None:
        affine = leading_affine(model, tensors[0])
        if affine.ops == 0:
            return None
        known = tuple(np.atleast_1d(affine.scale)), tuple(np.atleast_1d(affine.offset))
    scale, offset = float(np.median(np.abs(known[0]))), np.abs(known[1])
    means_only = np.allclose(known[0], 1.0) and bool(np.all((offset > _MEANS[0]) & (offset < _MEANS[1])))
    if means_only or _SPAN[0] <= 255 * scale <= _SPAN[1]:
        return _USUAL["0..255"]
    return _USUAL["0..1"] if _SPAN[0] <= scale <= _SPAN[1] else None


@dataclass(frozen=True)
class PixelChoice:
    """The normalization of images for a build.

    Attributes:
        preprocess: Normalization, None for the default.
        scales_itself: True when the model's first ops scale pixels of 0..255.
        notes: Assumptions, as sentences.
        warnings: What makes every result doubtful, as sentences.
    """

    preprocess: Preprocess | None
    scales_itself: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_preprocess(
    session: Session,
    float_model: FloatModel,
    described: Sequence[ModelInfo | None],
    options: BuildOptions,
    load: Load,
) -> PixelChoice:
    """Return the normalization of images: from --preprocess, a description, the model's first ops, or by trial.

    Args:
        session: Child processes and cache.
        float_model: The model.
        described: A model.toml and the file's own metadata, None where there is none.
        options: The user's options.
        load: Reads a source of samples with a normalization.

    Raises:
        SamplesError: The samples cannot be read or do not match.
    """
    tflite = float_model.tflite
    model = read_model(tflite)
    given = Preprocess.parse(options.preprocess) if options.preprocess not in ("", AUTO) else None
    for info in described:
        given = given or (None if info is None else pixel_rule(info, model_inputs(model)))
    rule = None if float_model.quantized else pixels_by_arithmetic(float_model, model)
    sources = [source for source in (options.eval, options.samples, options.train) if source]
    notes = [] if not sources else _arithmetic_notes(model, rule, given, _is_folder(sources[0]))
    preprocess = given or rule
    warnings: tuple[str, ...] = ()
    search = options.preprocess == AUTO or (preprocess is None and bool(sources) and _is_folder(sources[0]))
    if sources:
        trial = _try_sources(session, tflite, (load(source, preprocess) for source in sources), search=search)
        warnings = trial.warnings
        if options.preprocess == AUTO and trial.best is not None:
            preprocess, warnings = trial.best, ()
            notes.append(f"--preprocess {AUTO} took {_flag(trial.best)}: {'; '.join(trial.warnings)}")
    return PixelChoice(preprocess, rule == _USUAL["0..255"], tuple(notes), warnings)


def _is_folder(source: SampleSource) -> bool:
    """Return whether samples are a folder of images, the only source whose values edgepack scales."""
    return isinstance(source, str) and Path(source).is_dir()


def preprocess_for(session: Session, float_model: FloatModel, text: str, source: SampleSource) -> Preprocess | None:
    """Return the normalization of pixels for training, as `choose_preprocess` does for a build.

    Args:
        session: Child processes and cache.
        float_model: The model.
        text: `MEAN,STD`, `auto` or empty.
        source: Labelled samples.

    Raises:
        SamplesError: The text has another form, or the samples cannot be read.
    """
    if text not in ("", AUTO):
        return Preprocess.parse(text)
    tflite = float_model.tflite
    own, _ = own_metadata(tflite)
    model = read_model(tflite)
    rule = None if own is None else pixel_rule(own, model_inputs(model))
    rule = rule or pixels_by_arithmetic(float_model, model)
    if text == AUTO:
        samples = load_samples(source, input_specs(tflite), preprocess=rule)
        return _try_sources(session, tflite, [samples], search=True).best or rule
    return rule


def _try_sources(session: Session, tflite: bytes, sources: Iterable[SampleSet], *, search: bool) -> "InputTrial":
    """Try the first source that has labels."""
    labelled = next((samples for samples in sources if samples.labels is not None), None)
    return InputTrial() if labelled is None else try_inputs(session, tflite, labelled, search=search)


def _arithmetic_notes(model: Model, rule: Preprocess | None, given: Preprocess | None, images: bool) -> list[str]:
    """Return a sentence where the model's first ops scale pixels: what follows from that, or what contradicts it."""
    if rule is None or not images:
        return []
    domain = "0..255" if rule == _USUAL["0..255"] else "0..1"
    if given is None:
        return [f"pixels are given as {domain}, because the model's first ops scale its input"]
    if domain == "0..255" and max(map(abs, given.std)) > 2:
        return [
            f"pixels are normalized by {_flag(given)}, but the model's first ops scale its input as well, as if it had "
            "pixels of 0..255: they are probably normalized twice; --preprocess 0,1 leaves it to the model"
        ]
    return []


@dataclass(frozen=True)
class InputTrial:
    """What labelled samples say about the values that the model gets.

    Attributes:
        best: Normalization of images under which the model works best, None when the one given is as good.
        warnings: What the user should know, as sentences.
    """

    best: Preprocess | None = None
    warnings: tuple[str, ...] = ()


def try_inputs(session: Session, tflite: bytes, samples: SampleSet, *, search: bool) -> InputTrial:
    """Compare the float model's accuracy with chance, and where it guesses, with other values of the same inputs.

    Args:
        session: Child processes and cache.
        tflite: The float model.
        samples: Labelled samples.
        search: Try other normalizations also where the model works halfway: nobody said which one is right.
    """
    found = _classes(tflite, samples)
    if found is None or samples.labels is None:
        return InputTrial()
    position, classes = found
    chosen = samples.limited(_SAMPLES)
    given = Variant()
    try:
        hits = _count(session, tflite, chosen, position, [given])[given]
    except UnfitModelError:
        return InputTrial()
    labels = np.asarray(chosen.labels)
    chance = max(1 / classes, float(np.bincount(labels).max()) / len(labels))
    guesses = _at_least(sum(hits), len(hits), chance) > _SIGNIFICANCE
    rate = sum(hits) / len(hits)
    if not guesses and rate >= (_CERTAIN if search else _DOUBTFUL):
        return InputTrial()
    variants = _variants(tflite, chosen)
    scale = _pixel_scale(chosen)
    pixels = replace(chosen, preprocess=_USUAL["0..255"], digest=f"{chosen.digest}/pixels") if chosen.images else chosen
    tried = _count(session, tflite, pixels, position, variants, scale) if variants else {}
    better = {variant: found for variant, found in tried.items() if _is_better(found, hits, len(tried))}
    best = max(better, key=lambda variant: sum(better[variant]), default=None)
    usable = [v for v in better if not v.reverse and not v.offset and v.preprocess is not None]
    taken = max(usable, key=lambda variant: sum(better[variant]), default=None)
    text = f"the float model's top-1 is {_percent(hits)} on {len(hits)} labelled samples"
    if guesses:
        text += f", no better than guessing ({100 * chance:.1f} %)"
    if best is not None:
        text += f"; it is {_percent(better[best])} {_remedy(best, samples)}"
    elif guesses:
        text += ": check the order of the labels and whether the model is trained" + (
            "; the usual normalizations, BGR and labels that are one off do not help" if variants else ""
        )
    warnings = (text,) if guesses or best is not None else ()
    return InputTrial(taken.preprocess if taken is not None and samples.images else None, warnings)


def _classes(tflite: bytes, samples: SampleSet) -> tuple[int, int] | None:
    """Return the position of the output with class scores and the number of classes, None without one."""
    if samples.labels is None or not samples.labels.size:
        return None
    model = read_model(tflite)
    shapes = [info.shape for info in model_outputs(model)]
    highest = int(samples.labels.max())
    # Labels that count from 1 exceed the classes by one.
    for label in (highest, highest - 1):
        position = output_kinds(model.main, shapes, highest_label=label).classes
        if position is not None:
            return position, math.prod(shapes[position])
    return None


def _variants(tflite: bytes, samples: SampleSet) -> list[Variant]:
    """Return what to try: labels that are one off, and for one image input the usual normalizations and BGR."""
    variants = [Variant(offset=1), Variant(offset=-1)]
    inputs = model_inputs(read_model(tflite))
    if len(inputs) != 1 or not is_image(inputs[0].shape) or inputs[0].quantized or inputs[0].dtype.kind != "f":
        return [] if samples.images else variants
    if not samples.images and _pixel_scale(samples) is None:
        return variants
    channels = inputs[0].shape[3]
    usual = [rule for rule in _USUAL.values() if rule.fits(channels)]
    if samples.images:
        # The samples are unscaled pixels here: labels that are one off need the normalization that was given.
        variants = [Variant(samples.preprocess, offset=offset) for offset in (1, -1)]
        usual = [rule for rule in usual if rule != samples.preprocess]
    plain = [Variant(rule) for rule in usual]
    reverse = [Variant(samples.preprocess if samples.images else None, reverse=True)]
    reverse += [Variant(rule, reverse=True) for rule in usual]
    return [*variants, *plain, *(reverse if channels == 3 else [])]


def _pixel_scale(samples: SampleSet) -> tuple[float, float] | None:
    """Return (factor, summand) from a sample's values to pixels of 0..255, None when they do not look like pixels."""
    if samples.images:
        return 1.0, 0.0
    if len(samples.shapes) != 1:
        return None
    low, high = math.inf, -math.inf
    for number in range(min(8, len(samples))):
        values = next(iter(samples.sample(number).values()))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low >= 0 and high <= 1:
        return 255.0, 0.0
    if low >= -1 and high <= 1:
        return 127.5, 127.5
    return (1.0, 0.0) if low >= 0 and high <= 255 else None


def _remedy(variant: Variant, samples: SampleSet) -> str:
    """Return under which condition, and what to do."""
    texts, todo = [], []
    if variant.preprocess is not None and (not samples.images or variant.preprocess != samples.preprocess):
        name = next(key for key, rule in _USUAL.items() if rule == variant.preprocess)
        texts.append(f"with pixels scaled to {name}" if ".." in name else f"with pixels normalized by {name}")
        flag = f"--preprocess {_flag(variant.preprocess)}"
        todo.append(f"pass {flag}" if samples.images else f"write the samples as (pixel - MEAN) / STD of {flag[13:]}")
    if variant.reverse:
        texts.append("with the channels in the order BGR")
        todo.append("put `x[..., ::-1]` in front of the model and export it again")
    if variant.offset:
        texts.append(f"when {variant.offset:+d} is added to each label")
        todo.append("number the labels as the model does")
    return f"{' and '.join(texts)}: {', and '.join(todo)}"


def _count(
    session: Session,
    tflite: bytes,
    samples: SampleSet,
    position: int,
    variants: list[Variant],
    scale: tuple[float, float] | None = None,
) -> dict[Variant, tuple[bool, ...]]:
    def compute() -> list[list[bool]]:
        session.progress(f"trying the float model on {len(samples)} labelled samples")
        hits = session.workers.run(COUNT_HITS.call(tflite, samples, position, scale, variants))
        return [list(hits[variant]) for variant in variants]

    inputs = {
        "model": tflite,
        "samples": samples,
        "labels": None if samples.labels is None else samples.labels.tolist(),
        "output": position,
        "scale": scale,
        "variants": [
            [None if one.preprocess is None else one.preprocess.to_json(), one.reverse, one.offset] for one in variants
        ],
    }
    found = session.steps.memoize("input-values", inputs, _HITS, compute)
    return {variant: tuple(hits) for variant, hits in zip(variants, found, strict=True)}


_HITS: Codec[list[list[bool]]] = Codec(
    lambda hits: {"hits.json": to_json_bytes(hits)}, lambda files: json.loads(files["hits.json"])
)


def _is_better(found: tuple[bool, ...], given: tuple[bool, ...], trials: int) -> bool:
    """Return whether one way has more hits than another beyond chance: a sign test, corrected for several trials."""
    gained = sum(new and not old for new, old in zip(found, given, strict=True))
    lost = sum(old and not new for new, old in zip(found, given, strict=True))
    return gained > lost and trials * _at_least(gained, gained + lost, 0.5) < _SIGNIFICANCE


def _at_least(count: int, trials: int, probability: float) -> float:
    """Return the probability of at least `count` successes in independent trials."""
    return math.fsum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(count, trials + 1)
    )


def _flag(rule: Preprocess) -> str:
    return ",".join(f"{value:g}" for value in (*rule.mean, *rule.std))


def _percent(hits: tuple[bool, ...]) -> str:
    return f"{100 * sum(hits) / len(hits):.1f} %"
