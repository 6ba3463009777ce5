"""A set of samples that are read one by one, so that a folder of images is never in memory as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgepack.errors import SamplesError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Preprocess:
    """Conversion of pixels to input values: (pixel - mean) / std, pixel in 0..255.

    Attributes:
        mean: Subtracted from each pixel: one number, or one per channel in the order red, green, blue.
        std: Divisor, with as many numbers as `mean`. The defaults of 0 and 255 give values in 0..1.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `MEAN,STD`, or three means followed by three standard deviations.

        Raises:
            SamplesError: Not two or six finite numbers, or a standard deviation of zero.
        """
        try:
            numbers = tuple(float(part) for part in text.split(","))
            half = len(numbers) // 2
            if len(numbers) not in {2, 6} or 0 in numbers[half:] or not np.isfinite(numbers).all():
                raise ValueError
        except ValueError:
            raise SamplesError(
                f"--preprocess: expected MEAN,STD such as 127.5,127.5, or three of each, got '{text}'",
                hint="an input value is (pixel - MEAN) / STD with pixels in 0..255",
            ) from None
        return cls(numbers[:half], numbers[half:])

    def to_json(self) -> dict[str, float | list[float]]:
        """Return the `preprocessing` object of the manifest."""
        return {
            key: values[0] if len(values) == 1 else list(values)
            for key, values in (("mean", self.mean), ("std", self.std))
        }

    def fits(self, channels: int) -> bool:
        """Return whether there is one number, or one for each of `channels`."""
        return len(self.mean) in {1, channels} and len(self.std) in {1, channels}


@dataclass(frozen=True)
class SampleSet:
    """Samples of one model.

    The data is either in `arrays` (all samples stacked) or in the files of `images`.

    Attributes:
        source: Source as the user named it, without parent folders; for messages and manifests.
        digest: SHA-256 of the content, for cache keys.
        arrays: Input name -> array of shape (samples, ...) without the batch dimension of 1.
        images: Image files of the only input, in order.
        shapes: Input name -> shape of the array that `sample` returns, with the batch dimension of 1.
        dtypes: Input name -> NumPy dtype of the array that `sample` returns.
        labels: int64 class index of each sample, shape (samples,), or None.
        label_names: Names of the classes if the source has them (folders of images).
        preprocess: Conversion of pixels to values; only for images.
        notes: Assumptions made while reading, as sentences for the user.
    """

    source: str
    digest: str
    arrays: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype[Any]]
    images: tuple[Path, ...] = ()
    labels: npt.NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()
    preprocess: Preprocess = field(default_factory=Preprocess)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images) if self.images else len(next(iter(self.arrays.values())))

    def sample(self, index: int) -> dict[str, Array]:
        """Return one sample: input name -> array with the batch dimension of 1 (as in `shapes`).

        Raises:
            SamplesError: An image cannot be read.
        """
        if self.images:
            (name,) = self.shapes
            return {name: read_image(self.images[index], self.shapes[name], self.dtypes[name], self.preprocess)}
        return {
            name: np.ascontiguousarray(array[index], dtype=self.dtypes[name]).reshape(self.shapes[name])
            for name, array in self.arrays.items()
        }

    def limited(self, limit: int) -> "SampleSet":
        """Return at most `limit` samples, evenly spaced, so that a source sorted by class keeps all its classes."""
        if len(self) <= limit:
            return self
        return self.take([int(i) for i in np.linspace(0, len(self) - 1, limit)])

    def take(self, indices: Sequence[int]) -> "SampleSet":
        """Return the samples at `indices`."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            digest=f"{self.digest}[{','.join(map(str, indices))}]",
            arrays={name: array[chosen] for name, array in self.arrays.items()},
            images=tuple(self.images[i] for i in indices) if self.images else (),
            labels=None if self.labels is None else self.labels[chosen],
        )


def read_image(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], preprocess: Preprocess) -> Array:
    """Read an image into an input of shape (1, height, width, 1 or 3).

    Resizes with a bilinear filter, without keeping the aspect ratio. An integer input gets the unscaled pixels.

    Raises:
        SamplesError: Pillow cannot read the file as an image.
    """
    from PIL import Image, UnidentifiedImageError

    _, height, width, channels = shape
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SamplesError(f"cannot read the image '{path.name}': {type(error).__name__}") from error
    pixels = np.asarray(image, np.uint8).reshape(shape)
    if dtype.kind != "f":
        return pixels.astype(dtype)
    mean, std = (np.asarray(values, np.float32) for values in (preprocess.mean, preprocess.std))
    return ((pixels.astype(np.float32) - mean) / std).astype(dtype)
