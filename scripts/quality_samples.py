"""Samples of the benchmark's models: calibration and evaluation from disjoint data, float32, seeds fixed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from quality_models import TRAINING_DIGITS

Floats = npt.NDArray[np.float32]

Split = tuple[Floats, Floats, npt.NDArray[np.int64] | None]

#: Calibration samples of every model, and evaluation samples of those that take long.
CALIBRATION, EVALUATION = 100, 60

#: Sampling rate of basic-pitch's audio and length of one window, both in samples (its `constants.py`).
AUDIO_RATE, AUDIO_WINDOW = 22050, 43844


def crops(image: npt.NDArray[np.uint8], count: int, size: int, seed: int) -> Floats:
    """Return resized square crops of a photograph, some mirrored, with varied brightness: float32 0..255."""
    from PIL import Image

    random = np.random.default_rng(seed)
    shortest = min(image.shape[:2])
    images = []
    for _ in range(count):
        side = int(random.integers(min(size, shortest * 2 // 3), shortest))
        top, left = (int(random.integers(0, length - side)) for length in image.shape[:2])
        square = Image.fromarray(image[top : top + side, left : left + side])
        values = np.asarray(square.resize((size, size), Image.Resampling.BILINEAR), np.float32)
        values = values[:, ::-1] if random.random() < 0.5 else values
        images.append(np.clip(values * random.uniform(0.6, 1.3) + random.uniform(-30, 30), 0, 255))
    return np.stack(images).astype(np.float32)


def halves() -> tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint8]]]:
    """Return the left and the right halves of scikit-learn's two sample photographs, which share no pixel."""
    from sklearn.datasets import load_sample_images

    images = load_sample_images().images
    return [image[:, :320] for image in images], [image[:, 320:] for image in images]


def half_crops(size: int, scale: float) -> Split:
    """Return crops of the halves: they differ more than real calibration and evaluation sets do."""
    left, right = halves()
    calibration = np.concatenate([crops(image, CALIBRATION // 2, size, 1 + i) for i, image in enumerate(left)])
    evaluation = np.concatenate([crops(image, 100, size, 11 + i) for i, image in enumerate(right)])
    return (calibration * scale).astype(np.float32), (evaluation * scale).astype(np.float32), None


def photographs(folder: Path) -> Split:
    """Return whole photographs of `folder`, calibrate/ and evaluate/, in 0..255."""
    from PIL import Image

    parts = []
    for part, count in (("calibrate", CALIBRATION), ("evaluate", EVALUATION)):
        files = sorted((folder / part).glob("*.jpg"))[:count]
        parts.append(np.stack([np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]))
    return parts[0], parts[1], None


def photograph_crops(folder: Path, size: int) -> Split:
    """Return one crop of each photograph in 0..1, of scikit-learn's halves where there is no `folder`."""
    if not folder.is_dir():
        calibration, evaluation, _ = half_crops(size, 1 / 255)
        return calibration, evaluation[:: len(evaluation) // EVALUATION][:EVALUATION], None
    parts = [
        np.concatenate([crops(image.astype(np.uint8), 1, size, seed + i) for i, image in enumerate(images)]) / 255
        for images, seed in zip(photographs(folder)[:2], (1000, 2000), strict=True)
    ]
    return parts[0].astype(np.float32), parts[1].astype(np.float32), None


def archive(path: Path, first_evaluated: int, target: str = "y", scale: float = 1.0) -> Split:
    """Return the first samples of an .npz with x and labels for calibration, those from `first_evaluated` on after."""
    with np.load(path) as data:
        x, y = data["x"], data[target]
    return (
        x[:CALIBRATION].astype(np.float32) * np.float32(scale),
        x[first_evaluated:].astype(np.float32) * np.float32(scale),
        y[first_evaluated:].astype(np.int64),
    )


def scenes(digits: Path, out: Path) -> None:
    """Paste each digit at random on a crop of a photograph, in a color of its own.

    Writes x uint8 (n, 48, 48, 3), y, the digit, and classes (n, 48, 48): 0 background, 1 + digit. Those to train on
    have backgrounds from the left halves, the others, of which there are 1,000, from the right halves.
    """
    from PIL import Image

    size = 48
    with np.load(digits) as data:
        x, y = data["x"][: TRAINING_DIGITS + 1000, :, :, 0], data["y"][: TRAINING_DIGITS + 1000]
    grounds = [
        np.concatenate([crops(image, count // 2, size, seed + i) for i, image in enumerate(images)])
        for images, count, seed in zip(halves(), (TRAINING_DIGITS, 1000), (21, 31), strict=True)
    ]
    random = np.random.default_rng(0)
    grounds = [ground[random.permutation(len(ground))] for ground in grounds]
    # Half the contrast, so that a network of this size learns the digits within minutes.
    pictures = np.concatenate(grounds) / 2 + 64
    classes = np.zeros((len(x), size, size), np.uint8)
    for i, digit in enumerate(x):
        side = int(random.integers(26, 42))
        shape = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR))[..., np.newaxis]
        top, left = random.integers(0, size - side + 1, 2)
        window = np.s_[i, top : top + side, left : left + side]
        # At least 100 grey levels from the background, so that a person sees the digit.
        mean = pictures[i].mean()
        color = random.uniform(mean + 100, 300, 3) if mean < 128 else random.uniform(-45, mean - 100, 3)
        pictures[window] = pictures[window] * (1 - shape) + color * shape
        classes[window] = np.where(shape[..., 0] > 0.5, 1 + y[i], 0)
    pictures = np.clip(pictures + random.normal(0, 6, pictures.shape), 0, 255)
    np.savez_compressed(out, x=pictures.astype(np.uint8), y=y, classes=classes)


def notes(seeds: Sequence[int]) -> Floats:
    """Return windows of synthetic music, (n, samples, 1): up to six plucked notes with overtones, and noise."""
    time = np.arange(AUDIO_WINDOW) / AUDIO_RATE
    windows = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        window = np.zeros(AUDIO_WINDOW)
        for _ in range(int(random.integers(1, 7))):
            pitch = 440.0 * 2.0 ** ((int(random.integers(33, 89)) - 69) / 12)
            since = np.maximum(0.0, time - random.uniform(-0.5, 1.7))
            envelope = np.minimum(1.0, since / 0.01) * np.exp(-since * random.uniform(0.5, 5.0))
            overtones = random.uniform(0.2, 0.8) ** np.arange(8)
            for number, amplitude in enumerate(overtones, 1):
                if number * pitch < AUDIO_RATE / 2:
                    phase = random.uniform(0, 2 * np.pi)
                    window += amplitude * envelope * np.sin(2 * np.pi * number * pitch * since + phase)
        window *= random.uniform(0.1, 0.9) / max(1e-6, float(np.abs(window).max()))
        windows.append(window + random.normal(0, 10 ** random.uniform(-4, -2), AUDIO_WINDOW))
    return np.stack(windows).astype(np.float32)[..., np.newaxis]


def audio() -> Split:
    """Return windows of synthetic music, calibration and evaluation with different seeds."""
    return notes(range(1000, 1000 + CALIBRATION)), notes(range(5000, 5000 + EVALUATION)), None
