"""A Hugging Face model directory on disk: loading it with errors that say what to do, and putting one in place whole.

Only local files are read, and no code that comes with a model is run.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from prover.artifacts import disk_errors
from prover.errors import ModelError, first_line
from prover.records import Checkpoint

if TYPE_CHECKING:
    import torch

MANIFEST = "checkpoint.json"
ADAPTER = "adapter"
"""Folder in a model's directory with the LoRA adapter that makes it of its base model, as PEFT stores it."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".index.json")


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a model directory, with an end token. Raises ModelError."""
    _check_directory(path)
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(
            f"{path}: holds no tokenizer (no tokenizer.json); copy the tokenizer files of its base model here"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parsers raise
        raise ModelError(f"{path}: the tokenizer cannot be read ({first_line(error)})") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{path}: the tokenizer names no end token; set eos_token in tokenizer_config.json")
    return tokenizer


def load_model(path: Path, dtype: "torch.dtype", device: str) -> Any:
    """The causal language model of a directory, in evaluation mode. Raises ModelError."""
    _check_directory(path)
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # transformers and safetensors raise whatever their parsers raise
        raise ModelError(f"{path}: the weights cannot be read ({first_line(error)})") from error
    model, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"{path}: the weights lack {missing[0]} and {len(missing) - 1} more; the directory is incomplete"
        )
    return model.to(device).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars off the screen, and what DeepSpeed says where transformers imports it."""
    import torch
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def context_length(model_config: Any) -> int:
    """Longest sequence the model takes, tokens."""
    return int(getattr(model_config, "max_position_embeddings", None) or 1 << 30)


def _check_directory(path: Path) -> None:
    if not path.is_dir():
        raise ModelError(f"{path}: no such directory; give a Hugging Face model directory")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: is no model directory (no config.json); give a Hugging Face model directory")


def copy_side_files(source: Path, target: Path) -> None:
    """Copy everything that stands beside the weights: configuration, tokenizer, chat template."""
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name != MANIFEST and not file.name.endswith(_WEIGHTS):
            shutil.copyfile(file, target / file.name)


def reference(path: Path, output: Path) -> str:
    """How the manifest in ``output`` names another directory: relative to where ``output`` stands, so that a run
    directory that is moved, or made again elsewhere, has the same manifests."""
    return os.path.relpath(path.resolve(), output.resolve().parent)


def origin(path: Path, output: Path) -> str:
    """Where the line of models that ``path`` belongs to began, as the manifest in ``output`` names it."""
    manifest = read_checkpoint(path)
    if manifest is None or not manifest.base_model:
        return reference(path, output)
    return reference(path.resolve().parent / manifest.base_model, output)


def stored_dtype(path: Path) -> str:
    """The dtype that a model directory's configuration names for its weights, such as ``bfloat16``."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The manifest beside a model's weights; None where there is none, as in a directory made elsewhere."""
    try:
        return msgspec.json.decode((path / MANIFEST).read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ModelError(f"{path / MANIFEST}: is damaged ({error}); delete {path} and make it again") from error


@contextmanager
def placed(output: Path, manifest: Checkpoint) -> Iterator[Path]:
    """A temporary directory beside ``output`` to fill; on leaving without error it gets its manifest and the name.

    A kill at any moment leaves ``output`` as it was, absent, or whole; what stood there is replaced.
    """
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = output.with_name(f".{output.name}.tmp")
        aside = output.with_name(f".{output.name}.old")
        for left in (temporary, aside):
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        try:
            with disk_reports():
                yield temporary
            (temporary / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
            for file in temporary.rglob("*"):
                if file.is_file():
                    file.chmod(0o644)  # safetensors writes for the owner alone
                flush(file)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if output.exists():
            output.rename(aside)
        temporary.rename(output)
        flush(output.parent)
        shutil.rmtree(aside, ignore_errors=True)


def discard(path: Path) -> None:
    """Delete a directory so that a kill leaves it whole or absent, never in part."""
    aside = path.with_name(f".{path.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def linked(source: Path, output: Path) -> None:
    """The model of ``source`` at ``output`` too, without a second copy of its files where the disk can share them."""
    made = read_checkpoint(source)
    if made is None:
        raise ModelError(f"{source}: has no {MANIFEST}; make it again")
    parents = tuple(reference(source.parent / parent, output) for parent in made.parents)
    manifest = msgspec.structs.replace(
        made, path=output.name, base_model=reference(source.parent / made.base_model, output), parents=parents
    )
    with placed(output, manifest) as temporary:
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name != MANIFEST:  # an adapter is named relatively to where it stands
                try:
                    os.link(file, temporary / file.name)
                except OSError:
                    shutil.copyfile(file, temporary / file.name)


@contextmanager
def disk_reports() -> Iterator[None]:
    """safetensors reports a disk that takes no more in a class of its own; make it the system's again."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number.group(1)), os.strerror(int(number.group(1)))) from error


def flush(path: Path) -> None:
    """Make a file or a directory's entries last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
