"""LoRA (arXiv 2106.09685): PEFT's adapters in a model, and the ordinary model and PEFT adapter that come out.

An adapted layer computes ``W x + scale B A x``; only ``A`` and ``B`` are trained. Written are the sums
``W + scale B A``, a model like any other, and beside it ``A`` and ``B``, which an engine that holds the base model can
take in place of all weights.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from prover.config import LoraConfig
from prover.pretrained import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS

_NAME = "default"


def adapt(model: Any, config: LoraConfig, base: Path, output: Path, seed: int) -> None:
    """Put adapters into every linear layer of ``model`` but its output head, and freeze everything else.

    ``base``, which the model was loaded from, and ``output``, where the tuned one will lie, are for the adapter's
    configuration.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[reportArgumentType], PEFT only divides it
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=os.path.relpath(base.resolve(), output.resolve() / ADAPTER),
        inference_mode=True,  # as it is written; what is trained is decided by what has a gradient
    )
    torch.manual_seed(seed)  # A is drawn, B is zero
    inject_adapter_in_model(settings, model, adapter_name=_NAME)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    model.adapter_settings = settings


def is_adapted(model: Any) -> bool:
    return hasattr(model, "adapter_settings")


def write(model: Any, weights: Mapping[str, torch.Tensor], folder: Path, dtype: torch.dtype) -> None:
    """The merged model in ``folder`` and the adapter in ``folder/adapter``.

    ``weights`` are the adapted model's, under its names, whole, as one process has them.
    """
    from safetensors.torch import save_file

    model.save_pretrained(folder, state_dict=merged(model, weights, dtype))
    adapter = folder / ADAPTER
    adapter.mkdir()
    ours = {  # PEFT's names, for which the model is wrapped twice
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.to("cpu", torch.float32).contiguous()
        for name, tensor in weights.items()
        if ".lora_" in name
    }
    save_file(ours, adapter / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    settings = model.adapter_settings.to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merged(model: Any, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights without adapters, under the names that the model had before, in ``dtype``. Tied ones stay tied."""
    layers = dict(_layers(model))
    cast: dict[int, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        place, inner, kind = name.rpartition(".base_layer.")
        if inner and kind == "weight":
            down, up = (weights[f"{place}.lora_{factor}.{_NAME}.weight"].float() for factor in "AB")
            change = layers[place].scaling[_NAME] * (up @ down)
            found[f"{place}.weight"] = (tensor.float() + (change.T if layers[place].fan_in_fan_out else change)).to(
                dtype
            )
        elif ".lora_" not in name:
            found[f"{place}.{kind}" if inner else name] = cast.setdefault(
                tensor.data_ptr(), tensor.to(dtype) if tensor.is_floating_point() else tensor
            )
    return found


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))
