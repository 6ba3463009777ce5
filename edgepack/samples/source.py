"""A set of samples that are read one by one, so that a folder of images is never in memory as a whole."""

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from edgepack.choices import Resize
from edgepack.errors import SamplesError
from edgepack.files import open_regular
from edgepack.graph.metadata import normalization_fault
from edgepack.samples.storage import StoredArray
from edgepack.tasks.decode.fitting import fitted
from edgepack.text import first_line

if TYPE_CHECKING:
    from edgepack.samples.truth import Truth

#: Formats that are decoded, by Pillow's names; others such as EPS start a program to decode them.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")

#: Most pixels of an image: Pillow's limit against decompression bombs, Image.MAX_IMAGE_PIXELS.
MOST_PIXELS = 89_478_485

#: Most bytes of an image file: 3 bytes for each of `MOST_PIXELS`, uncompressed.
MOST_IMAGE_BYTES = 3 * MOST_PIXELS + (1 << 20)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class InputSpec:
    """One input of the model, which samples have to match.

    Attributes:
        name: Input name.
        shape: Shape with the batch dimension; -1 for a dynamic dimension.
        dtype: NumPy dtype of the model's input.
        scale: Scale of a quantized input, 0.0 otherwise.
        zero_point: Zero point of a quantized input.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float = 0.0
    zero_point: int = 0

    @property
    def batched(self) -> bool:
        """True when the first dimension is the batch; an input of rank 0 or of shape [15600] has none."""
        return bool(self.shape) and self.shape[0] in (1, -1)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample in an array of samples: without the batch dimension, -1 for a dynamic dimension."""
        return self.shape[1:] if self.batched else self.shape

    @property
    def sample_dtype(self) -> np.dtype[Any]:
        """Dtype of the samples' real (dequantized) values."""
        return np.dtype(np.float32) if self.scale else self.dtype

    def describe(self) -> str:
        """Return `'image' [1, 96, 96, 3] float32`."""
        return f"'{self.name}' {list(self.shape)} {self.sample_dtype}"


class SampleObject(Protocol):
    """Samples that are no text, such as arrays in memory: what reads them when the model's inputs are known."""

    def load(self, inputs: Sequence[InputSpec], classes: Sequence[str]) -> "SampleSet":
        """Return the samples, matched to the inputs; equal calls return equal sets.

        Args:
            inputs: The model's inputs.
            classes: Names of the model's classes in their order, empty when they are unknown.

        Raises:
            SamplesError: They do not match the inputs.
        """

    def __hash__(self) -> int:
        """Return the hash of the object's identity: a build reads every source once."""


#: Where samples come from: the text of the command line, or an object of a Python program.
SampleSource = str | SampleObject


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
            SamplesError: Not two or six finite numbers, or a standard deviation of zero in float32.
        """
        try:
            numbers = tuple(float(part) for part in text.split(","))
            half = len(numbers) // 2
            if len(numbers) not in {2, 6} or normalization_fault(numbers[:half], numbers[half:]):
                raise ValueError
        except ValueError:
            raise SamplesError(
                f"--preprocess: expected MEAN,STD such as 127.5,127.5, or three of each, got '{text[:80]}'",
                hint="an input value is (pixel - MEAN) / STD with pixels in 0..255; STD is not 0, both are finite",
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

    The data is either in `arrays` (in memory, or in a file from which samples are read one by one) or in the files of
    `images`. What was read is what was hashed: a file that changes afterwards is an error.

    Attributes:
        source: Source as the user named it, without parent folders; for messages and manifests.
        digest: SHA-256 of the content, for cache keys.
        arrays: Input name -> array of shape (samples, ...) without the batch dimension of 1.
        images: Image files of the only input, in order.
        image_digests: SHA-256 of each image file.
        shapes: Input name -> shape of the array that `sample` returns, with the batch dimension of 1.
        dtypes: Input name -> NumPy dtype of the array that `sample` returns.
        labels: int64 class index of each sample, shape (samples,), or None.
        label_names: Names of the classes if the source has them (folders of images).
        preprocess: Conversion of pixels to values; only for images.
        resize: How images get the input's size.
        truth: What is true of each image, for detectors and segmentations.
        notes: Assumptions made while reading, as sentences for the user.
    """

    source: str
    digest: str
    arrays: dict[str, Array | StoredArray]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype[Any]]
    images: tuple[Path, ...] = ()
    image_digests: tuple[bytes, ...] = ()
    labels: npt.NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()
    preprocess: Preprocess = field(default_factory=Preprocess)
    resize: Resize = Resize.STRETCH
    truth: "Truth | None" = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images) if self.images else len(next(iter(self.arrays.values())))

    def sample(self, index: int) -> dict[str, Array]:
        """Return one sample: input name -> array with the batch dimension of 1 (as in `shapes`).

        Raises:
            SamplesError: A file cannot be read, or is not the one that was hashed.
        """
        if self.images:
            (name,) = self.shapes
            digest = self.image_digests[index] if self.image_digests else None
            path, shape, dtype = self.images[index], self.shapes[name], self.dtypes[name]
            values = read_image(path, shape, dtype, self.preprocess, digest, resize=self.resize)
            return {name: values}
        return {
            name: np.asarray(
                array.row(index) if isinstance(array, StoredArray) else array[index], self.dtypes[name], order="C"
            ).reshape(self.shapes[name])
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
            arrays={
                name: array.take(chosen) if isinstance(array, StoredArray) else array[chosen]
                for name, array in self.arrays.items()
            },
            images=tuple(self.images[i] for i in indices) if self.images else (),
            image_digests=tuple(self.image_digests[i] for i in indices) if self.image_digests else (),
            labels=None if self.labels is None else self.labels[chosen],
            truth=None if self.truth is None else self.truth.take([int(i) for i in indices]),
        )


def image_bytes(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        SamplesError: It cannot be read, is no regular file or larger than `MOST_IMAGE_BYTES`.
    """
    try:
        with open_regular(path) as stream:
            # A read of n bytes reserves n bytes, so the size comes first.
            size = os.fstat(stream.fileno()).st_size
            data = stream.read(size) if size <= MOST_IMAGE_BYTES else b""
    except OSError as error:
        raise SamplesError(f"cannot read the image '{path.name}': {error.strerror or error}") from error
    if size > MOST_IMAGE_BYTES:
        raise SamplesError(
            f"the image '{path.name}' has more than {MOST_IMAGE_BYTES:,} bytes", hint="scale or compress it first"
        )
    return data


def read_image(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    preprocess: Preprocess,
    digest: bytes | None = None,
    *,
    resize: Resize = Resize.STRETCH,
) -> Array:
    """Read an image into an input of shape (1, height, width, 1 or 3).

    Resizes with a bilinear filter that takes every pixel of the image into account. An integer input gets the unscaled
    pixels. The dimensions in the file are compared with `MOST_PIXELS` before it is decoded.

    Args:
        path: The file.
        shape: Shape of the input.
        dtype: Dtype of the input.
        preprocess: Conversion of pixels to values.
        digest: SHA-256 that the file has to have, None for any.
        resize: How the image gets the input's size.

    Raises:
        SamplesError: Pillow cannot read the file as an image, it is too large, or it changed.
    """
    from PIL import Image

    _, height, width, channels = shape
    data = image_bytes(path)
    if digest is not None and hashlib.sha256(data).digest() != digest:
        raise SamplesError(
            f"the image '{path.name}' changed after it was hashed", hint="build again with the final file"
        )
    try:
        with warnings.catch_warnings():
            # Pillow warns above its limit; the check of the dimensions below refuses such an image.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    raise Image.DecompressionBombError(
                        f"{opened.width} x {opened.height} pixels, at most {MOST_PIXELS}"
                    )
                image = fitted(opened.convert("L" if channels == 1 else "RGB"), width, height, resize)
    except Exception as error:  # whatever the decoders of damaged files raise
        kind = type(error).__name__
        reason = kind if isinstance(error, OSError) and error.errno is None else f"{kind}: {first_line(error)}"
        raise SamplesError(
            f"cannot read the image '{path.name}': {reason}", hint=f"formats are {', '.join(IMAGE_FORMATS)}"
        ) from error
    pixels = np.asarray(image, np.uint8).reshape(shape)
    if dtype.kind != "f":
        return pixels.astype(dtype)
    mean, std = (np.asarray(values, np.float32) for values in (preprocess.mean, preprocess.std))
    return ((pixels.astype(np.float32) - mean) / std).astype(dtype)
