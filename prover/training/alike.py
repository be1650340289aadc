"""Whether models can be averaged: one architecture, the same tensors. What differs is named."""

from itertools import zip_longest
from typing import Any

import torch

from prover.errors import ModelError
from prover.training.stored import StoredModel

_DECIDE = (
    "model_type",
    "architectures",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rope_theta",
    "num_experts",
    "num_experts_per_tok",
)
"""Keys of config.json that say what the weights mean. Others may differ: ids of tokens, dtypes, versions."""


def check_alike(one: StoredModel, other: StoredModel) -> None:
    """Raises ModelError where the models have different architectures or tensors, naming the first difference.

    A tied output head may be left out, or stored though it equals the embedding.
    """
    mine, theirs = _decisive(one.config), _decisive(other.config)
    for key in _DECIDE:
        if key in mine and key in theirs and mine[key] != theirs[key]:
            raise ModelError(
                f"{other.path}: its config.json has {key} {theirs[key]!r}, that of {one.path} {mine[key]!r}; "
                "only models of one architecture have an average"
            )
    for name in one.tensors:
        here, there = one.find(name), other.find(name)
        assert here is not None
        if there is None:
            raise ModelError(f"{other.path}: lacks tensor {name}, which {one.path} has; they are different models")
        if (here.shape, here.dtype) != (there.shape, there.dtype):
            raise ModelError(f"{other.path}: tensor {name} is {there}, in {one.path} it is {here}")
    for name in other.tensors:
        if name in one.tensors:
            continue
        kept = one.shared.get(name)
        if kept is None:
            raise ModelError(f"{one.path}: lacks tensor {name}, which {other.path} has; they are different models")
        if name not in other.shared and not same_bytes(other, name, other, kept):
            raise ModelError(
                f"{other.path}: its tensor {name} differs from {kept}, but {one.path} ties the two; "
                "give the model that has both first"
            )


def same_bytes(one: StoredModel, name: str, other: StoredModel, other_name: str) -> bool:
    """Whether two tensors have the same content, bit for bit."""
    pairs = zip_longest(one.pieces(name), other.pieces(other_name))
    return all(
        a is not None and b is not None and torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs
    )


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """What is known of the decisive keys; newer configurations keep the base of RoPE in a section of its own."""
    rope = config.get("rope_parameters")
    flat = {**(rope if isinstance(rope, dict) else {}), **config}  # type: ignore[reportUnknownArgumentType]
    return {key: flat[key] for key in _DECIDE if flat.get(key) is not None}
