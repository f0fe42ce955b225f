"""Weight files: theirs are read without running code from them, ours are written atomically."""

import argparse
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors
from torch import Tensor

from objdisc_jax.errors import UserError
from objdisc_jax.files import replacing

LIGHTNING_VERSION = "1.8.6"
PREFIX = "model."
COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module's parts, be it the model or a part of it."""
METADATA = "objdisc_jax"


class WeightFile(NamedTuple):
    """What a weight file holds."""

    state: dict[str, Tensor]  # tensors by key
    # What the file says of the model: published hyper-parameters, or the model block that
    # `write` put into a safetensors file; empty where it says nothing.
    settings: dict[str, Any]
    # What the file says of the training step of its weights, unchecked; None where it says
    # nothing.
    step: Any = None
    others: tuple[str, ...] = ()  # names of what it holds beside tensors


def read(file: Path) -> WeightFile:
    """Reads a state_dict, a safetensors file or a Lightning checkpoint; tells them apart itself.

    Raises:
        UserError: there is no such file, it is damaged, it holds something else, or it would have
            to run code to be read.
    """
    if not file.is_file():
        raise UserError(f"checkpoint: there is no file {file}. Name the weight file to read.")
    with file.open("rb") as stream:
        is_safetensors = stream.read(9)[8:] == b"{"
    content: Any
    settings: Any = {}
    step: Any = None
    if is_safetensors:
        content, metadata = _read_safetensors(file)
        settings, step = metadata.get("model", {}), metadata.get("step")
    else:
        content = _read_pickle(file)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        settings = content.get("hyper_parameters") or {}
        settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
        step = content.get("global_step")
        content = content["state_dict"]
    elif isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        inside = {f"model.{key}": value for key, value in content["model"].items()}
        content = {key: value for key, value in content.items() if key != "model"} | inside
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"checkpoint: {file} holds a {type(content).__name__} and no weights. Allowed are a "
            "state_dict, a safetensors file, and a Lightning checkpoint."
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if not tensors:
        raise UserError(
            f"checkpoint: {file} is not a state_dict: {', '.join(sorted(others)[:10])} "
            "are not tensors. Save model.state_dict() alone."
        )
    settings = dict(settings) if isinstance(settings, Mapping) else {}
    plain = {key.replace(COMPILED, ""): tensor for key, tensor in tensors.items()}
    is_unambiguous = len(plain) == len(tensors)
    return WeightFile(plain if is_unambiguous else tensors, settings, step, tuple(others))


def write(
    file: Path,
    state: Mapping[str, Tensor],
    *,
    format: str,
    block: Mapping[str, Any],
    hyper_parameters: Mapping[str, Any],
    step: int,
) -> None:
    """Writes weights; the file appears under its name only when it is complete.

    Args:
        file: where to; its folder is made.
        state: the model's `state_dict`.
        format: `state_dict`, `safetensors`, or `lightning`, which has the structure of the
            published checkpoints.
        block: the model block of the config, which goes into a safetensors file's metadata.
        hyper_parameters: the same under the published names, for `lightning`.
        step: training step of the weights.

    Raises:
        UserError: the file cannot be written.
    """
    content: Any = dict(state)
    if format == "lightning":
        content = {
            "epoch": 0,
            "global_step": step,
            "pytorch-lightning_version": LIGHTNING_VERSION,
            "state_dict": {PREFIX + key: tensor for key, tensor in state.items()},
            "loops": {},
            "callbacks": {},
            "optimizer_states": [],
            "lr_schedulers": [],
            "hparams_name": "params",
            "hyper_parameters": dict(hyper_parameters),
        }
    metadata = {METADATA: json.dumps({"model": dict(block), "step": step})}
    try:
        with replacing(file) as partial:
            if format == "safetensors":
                partial.write_bytes(as_safetensors(content, metadata))
            else:
                torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # either, of a full disk
        raise UserError(
            f"output: {file} cannot be written ({_first_line(error)}). Make room, or name another "
            "file."
        ) from error


def _read_pickle(file: Path) -> Any:
    try:
        with (
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(action="ignore"),  # of pickles that torch.save didn't make
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can raise anything
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"checkpoint: {file} asks for {found[1]} when it is read. A weight file needs no "
                "code, and this one could run some, so it was not read. If you trust it, open it "
                "where it was made and save model.state_dict() alone."
            ) from error
        is_pickle = isinstance(error, pickle.UnpicklingError)  # whose text tells of torch.load
        reason = "it is no pickle of tensors" if is_pickle else _first_line(error)
        raise _damaged(file, reason) from error


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            state = {key: opened.get_tensor(key) for key in opened.keys()}
            metadata = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
            metadata = metadata if isinstance(metadata, dict) else {}
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise _damaged(file, _first_line(error)) from error
    return state, metadata


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        f"checkpoint: {file} cannot be read ({reason}). It is damaged, or no weight file. Copy it "
        "anew; allowed are a state_dict, a safetensors file, and a Lightning checkpoint."
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0][:200]}"
