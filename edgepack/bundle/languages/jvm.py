"""What the Kotlin and the Java loader share: names that are legal in both, array types, and the Android package."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgepack.bundle import names
from edgepack.bundle.images import ImageView, image_views
from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.languages.jvm_tasks import TASK_CLASSES, jvm_task
from edgepack.bundle.languages.jvm_tensor import JvmTensor
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.tasks import task_view
from edgepack.bundle.views import TensorView, facts_of
from edgepack.choices import Platform

# Kotlin's hard keywords and literals, and Java's: a Kotlin name should stay usable from Java.
_KEYWORDS = names.word_set("""
    abstract as assert boolean break byte case catch char class const continue default do double else enum extends false
    final finally float for fun goto if implements import in instanceof int interface is long native new null object
    package private protected public return short static strictfp super switch synchronized this throw throws transient
    true try typealias typeof val var void volatile when while yield
""")
# Names that the generated code itself uses where a model's names are in scope.
_USED = names.word_set("runner converters outputs inputs listOf arrayOf mapOf topK labels output k")
# Kotlin, Android and loader names that a class named after a model must not shadow in the generated files.
_CLASS_NAMES = names.word_set("""
    Accelerator Activity Array ArrayList Arrays AssetManager Assets Attempt Benchmark Bitmap Boolean Buffer Build
    BuiltinNpuAcceleratorProvider Bundle Byte ByteArray ByteBuffer ByteOrder Callable Collection Comparable
    CompatibilityList CompiledEngine CompiledModel Consumer Context Delegate Double Engine Environment Error
    Exception ExecutorService Executors File Fit Fitting Float FloatArray FloatBuffer Frame FrameConverter
    FrameMapping FramePoint FrameStream Function GoldenDifference GpuDelegate HashMap IllegalArgumentException
    IllegalStateException Image ImageFormat ImageSpec Instrumentation Int IntArray Integer Interpreter
    InterpreterEngine Iterable JvmOverloads Label LinkageError List Long LongArray Map Math MessageDigest
    ModelRunner ModelStatus Nothing NpuCompatibilityChecker Object Override Pair PixelFormat QnnDelegate Result
    Runnable SelfTest Sequence Set Short ShortArray ShortBuffer String Supplier System Tail TensorBuffer TensorSpec
    Thread Throwable Unit Values
""")


#: JVM type of the values that a converter of frames keeps for an input -> TFLite types of such inputs.
_ARRAY_TYPES = {"Float": {"FLOAT32"}, "Short": {"INT16"}, "Byte": {"INT8", "UINT8"}}


@dataclass(frozen=True)
class Parameter:
    """A parameter of the `run` overload for images.

    Attributes:
        tensor: The input.
        image: How an image becomes the input's values; None for an input that takes values.
        number: Position among the image inputs.
    """

    tensor: JvmTensor
    image: ImageView | None
    number: int

    @property
    def name(self) -> str:
        """Identifier."""
        return self.tensor.field

    @property
    def text(self) -> str:
        """Description for a comment."""
        return "An image" if self.image else f"{self.tensor.elements} values"

    @property
    def declaration(self) -> str:
        """Type and name, where images are frames."""
        return self.tensor.declare("Frame" if self.image else self.tensor.type)

    @property
    def bitmap_declaration(self) -> str:
        """Type and name, where images are bitmaps."""
        return self.tensor.declare("Bitmap" if self.image else self.tensor.type)

    @property
    def bitmap_argument(self) -> str:
        """Argument for the `run` that takes frames, from a bitmap."""
        return f"{self.tensor.new}Frame().set({self.name})" if self.image else self.name


def jvm_segment(name: str) -> str:
    """Return one segment of a package name: lower case, no underscore, no keyword."""
    segment = "".join(names.stem(name, "model"))
    return f"{segment}model" if segment in _KEYWORDS else segment


def jvm_package(prefix: str, name: str) -> str:
    """Return a package name: the legal form of each segment of `prefix`, then the model's.

    Args:
        prefix: For example `com.example`; illegal segments are made legal, empty ones dropped.
        name: The model's name.
    """
    segments = [jvm_segment(part) for part in prefix.split(".") if part.strip()]
    return ".".join([*(segments or ["com", "example"]), jvm_segment(name)])


def jvm_identifiers(texts: Iterable[str], fallback: str) -> list[str]:
    """Return a different name for each text that is legal in Kotlin and in Java."""

    def legal(text: str) -> str:
        identifier = names.camel(text, fallback)
        return f"{identifier}Value" if identifier in _KEYWORDS or identifier in _USED else identifier

    return names.distinct(texts, legal)


class JvmLanguage(LoaderLanguage):
    """A language of Android loaders on the Java virtual machine.

    Attributes:
        tensor: How the language's templates see a tensor.
    """

    platforms = (Platform.ANDROID,)
    class_names = _CLASS_NAMES | TASK_CLASSES
    keywords = _KEYWORDS
    tensor: ClassVar[type[JvmTensor]]

    def placeholders(self, spec: BundleSpec) -> Mapping[str, str]:
        """Return `__package_path__`."""
        return {"__package_path__": jvm_package(spec.android_package, spec.name).replace(".", "/")}

    def context(
        self, spec: BundleSpec, inputs: Sequence[TensorView], outputs: Sequence[TensorView]
    ) -> Mapping[str, Any]:
        """Return the package's name, and the tensors with identifiers and array types, under names with the id."""
        package = jvm_package(spec.android_package, spec.name)
        arguments, results = self._tensors(inputs, "input"), self._tensors(outputs, "output")
        images = {image.index: image for image in image_views(spec)}
        return {
            "kotlin_package": package,
            "self_test_component": f"{package}.test/{package}.SelfTest",
            f"{self.id}_inputs": arguments,
            f"{self.id}_outputs": results,
            # Labels rank real numbers.
            f"{self.id}_labelled": [t for t in results if t.ranked and (t.quantized or t.dtype == "FLOAT32")],
            f"{self.id}_postprocessed": [tensor for tensor in results if tensor.tail],
            f"{self.id}_task": jvm_task(task_view(spec), results),
            "image_types": [
                kind for kind, known in _ARRAY_TYPES.items() if known & {spec.inputs[i].dtype for i in images}
            ],
            f"{self.id}_image_parameters": [
                Parameter(tensor, images.get(tensor.index), sum(index < tensor.index for index in images))
                for tensor in arguments
            ],
        }

    def _tensors(self, views: Sequence[TensorView], fallback: str) -> list[JvmTensor]:
        fields = jvm_identifiers([view.name for view in views], fallback)
        return [self.tensor(**facts_of(view), field=field) for view, field in zip(views, fields, strict=True)]
