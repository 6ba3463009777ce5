"""Private copies of SavedModels: parsed by TensorFlow's protocol buffers, examined, written out again, then loaded."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.errors import ConversionError, ModelFileError
from edgepack.files import open_regular
from edgepack.text import first_few
from edgepack.untrusted.graph_code import INIT_SIGNATURE, asset_files, find_graph_code


@dataclass(frozen=True)
class SavedModelFile:
    """A SavedModel that was read once.

    Attributes:
        path: The user's folder.
        message: The parsed message; its only meta graph is the one that is loaded.
        code: One phrase per op in any of the file's graphs that does more than compute on tensors.
    """

    path: Path
    message: Any
    code: tuple[str, ...]

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the graph."""
        return tuple(self.message.meta_graphs[0].meta_info_def.tags)

    @property
    def signatures(self) -> tuple[str, ...]:
        """Keys of the signatures, sorted."""
        return tuple(sorted(key for key in self.message.meta_graphs[0].signature_def if key != INIT_SIGNATURE))

    def refuse_code(self) -> None:
        """Refuse a model with code.

        Raises:
            ConversionError: Names the ops, how to export the model without them, and the flag that allows them.
        """
        if self.code:
            raise ConversionError(
                f"'{self.path}' contains code that would run on this machine: {first_few(self.code)}",
                hint="export only the part that computes on tensors, with files read before the model and lookup tables"
                " made from their words or from assets: tf.saved_model.save(model, DIR, signatures=...);"
                " if you trust the source of the model, allow its code with --allow-code",
                details={"code": list(self.code)},
            )

    def write_copy(self, target: Path) -> None:
        """Write the message, the variables and the assets that it names into an empty folder, as regular files.

        Raises:
            ModelFileError: An asset or a variables file is missing, no regular file, or outside the model.
        """
        for source, inside in _variables(self.path):
            _copy(source, target / "variables" / inside)
        graph = self.message.meta_graphs[0]
        for asset in asset_files(graph):
            name = asset.filename
            if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
                raise ModelFileError(
                    f"'{self.path}' names the asset '{name}', which is outside its folder assets/",
                    hint="export the SavedModel again",
                )
            source = self.path / "assets" / name
            if not _belongs(source, self.path):
                raise ModelFileError(
                    f"'{source}' is a link to a file outside the model", hint="replace the link by a copy of the file"
                )
            copied = target / "assets" / name
            if not copied.exists():
                _copy(source, copied)
            # The stored constant is the path on the machine that exported the model.
            for node in graph.graph_def.node:
                if node.name == asset.tensor_info.name.split(":")[0] and node.op == "Const":
                    node.attr["value"].tensor.ClearField("tensor_content")
                    node.attr["value"].tensor.string_val[:] = [os.fsencode(copied)]
        (target / "saved_model.pb").write_bytes(self.message.SerializeToString(deterministic=True))


def read_saved_model(path: Path) -> SavedModelFile:
    """Read a SavedModel; of several graphs, the one tagged `serve`, else the first, is kept. TensorFlow is imported.

    Args:
        path: The folder with saved_model.pb.

    Raises:
        ModelFileError: saved_model.pb cannot be read, is corrupt or has no graph.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    message = saved_model_pb2.SavedModel()
    try:
        with _open(file) as stream:
            message.ParseFromString(stream.read())
        code = find_graph_code(message)
        # All later readers of the assets' collection find what was parsed here.
        for graph in message.meta_graphs:
            asset_files(graph)
    except DecodeError as error:
        raise ModelFileError(f"'{file}' is corrupt: {error}", hint="export the SavedModel again") from error
    if not message.meta_graphs:
        raise ModelFileError(f"'{file}' contains no graph", hint="export the SavedModel again")
    graphs = message.meta_graphs
    chosen = next((graph for graph in graphs if set(graph.meta_info_def.tags) == {"serve"}), graphs[0])
    kept = saved_model_pb2.SavedModel(saved_model_schema_version=message.saved_model_schema_version)
    kept.meta_graphs.add().CopyFrom(chosen)
    return SavedModelFile(path, kept, tuple(code))


def _variables(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of variables/ with their names; the folder has no other folders."""
    folder = path / "variables"
    if folder.is_dir():
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith("variables."):
                yield entry, entry.name


def _belongs(file: Path, model: Path) -> bool:
    """Return whether a file's content is in the model's folder, or in the blobs of a Hugging Face cache around it."""
    target, root = file.resolve(), model.resolve()
    blobs = [parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots"]
    return target.is_relative_to(root) or any(target.is_relative_to(folder) for folder in blobs)


def _open(file: Path) -> Any:
    """Open a regular file for reading; a pipe or a device is refused instead of waited for."""
    try:
        return open_regular(file)
    except OSError as error:
        reason = error.strerror or error
        raise ModelFileError(f"cannot read '{file}': {reason}", hint="copy the whole SavedModel again") from error


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open(source) as stream, target.open("wb") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
