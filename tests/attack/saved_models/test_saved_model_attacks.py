"""SavedModels that would write, read, connect or run code: each is refused, and nothing that it wanted happens."""

import os
from pathlib import Path

import pytest

from edgepack.child import Worker
from edgepack.convert import ConvertOptions, convert
from edgepack.errors import ConversionError, ModelFileError

ATTACKS = {
    "debug_nan_count": "DebugNanCount sends tensors to 'file://",
    "debug_identity": "DebugIdentity sends tensors to 'file://",
    "debug_identity_grpc": "DebugIdentity sends tensors to 'grpc://",
    "vocabulary_remapping": "GenerateVocabRemapping reads a file",
    "decode_proto": "DecodeProtoV2 reads '",
    "candidate_file": "FixedUnigramCandidateSampler reads '",
    "read_file": "ReadFile reads a file",
    "print_to_file": r"PrintV2 writes a file \('file://",
    "py_function": "PyFunc runs Python",
    "table_of_a_file": "InitializeTableFromTextFileV2 reads a file that is not an asset of the model",
    "dataset_in_initializer": "DatasetFromGraph reads data with tf.data",
    "dataset_of_a_file": "TextLineDataset reads data with tf.data",
    "dataset_that_writes": "CacheDatasetV2 reads data with tf.data",
    "merged_messages": "WriteFile writes a file",
    "write_file": "WriteFile writes a file",
    "unnamed_functions": r"WriteFile writes a file \(node '' of function ''\)",
    "second_meta_graph": "LoadedByLibrary is not an op of TensorFlow",
    "save_disguised_by_grappler": "SaveV2 writes a file outside the saver",
    "restore_of_a_foreign_checkpoint": "RestoreV2 reads a file other than the variables",
    "function_named_like_an_op": "WriteFile writes a file",
}


@pytest.mark.parametrize(("attack", "message"), ATTACKS.items())
def test_code_is_refused(attack_worker: Worker, tmp_path: Path, attack: str, message: str) -> None:
    """The error names the op, where it is and the flag; no file is written."""
    model, mark = tmp_path / "model", tmp_path / "mark"
    attack_worker.call(f"saved_model_attacks:{attack}", str(model), str(mark))
    with pytest.raises(ConversionError, match=message) as caught:
        convert(model, worker=attack_worker, options=ConvertOptions(), timeout=300)
    assert caught.value.exit_code == 4
    assert "--allow-code" in caught.value.hint
    assert "node '" in caught.value.message
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_the_copy_has_regular_files_only(attack_worker: Worker, tmp_path: Path) -> None:
    """Variables behind a link are copied; a pipe is refused at once instead of waited for."""
    model, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    attack_worker.call("saved_model_attacks:variable", str(model))
    (model / "variables").rename(elsewhere)
    (model / "variables").symlink_to(elsewhere)
    attack_worker.call("saved_model_attacks:private_copy", str(model), str(tmp_path / "copy"))
    files = [file for file in (tmp_path / "copy").rglob("*") if not file.is_dir()]
    assert {file.name for file in files} >= {"saved_model.pb", "variables.index", "variables.data-00000-of-00001"}
    assert not any(file.is_symlink() for file in (tmp_path / "copy").rglob("*"))
    (elsewhere / "variables.index").unlink()
    os.mkfifo(elsewhere / "variables.index")
    with pytest.raises(ModelFileError, match="not a regular file"):
        convert(model, worker=attack_worker, options=ConvertOptions(), timeout=60)


def test_assets_stay_in_the_model(attack_worker: Worker, tmp_path: Path) -> None:
    """An asset that is a link to a file elsewhere is refused."""
    model, secret = tmp_path / "model", tmp_path / "secret"
    secret.write_text("a\nb\n")
    attack_worker.call("saved_model_attacks:vocabulary", str(model), "")
    asset = next((model / "assets").iterdir())
    asset.unlink()
    asset.symlink_to(secret)
    with pytest.raises(ModelFileError, match="link to a file outside the model"):
        convert(model, worker=attack_worker, options=ConvertOptions(), timeout=60)


def test_assets_that_cannot_be_read(attack_worker: Worker, tmp_path: Path) -> None:
    """A collection of assets that cannot be parsed is one error, with exit code and hint."""
    attack_worker.call("saved_model_attacks:unreadable_assets", str(tmp_path / "model"))
    with pytest.raises(ModelFileError, match="is corrupt"):
        convert(tmp_path / "model", worker=attack_worker, options=ConvertOptions(), timeout=60)
