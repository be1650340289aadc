"""Training in many processes through DeepSpeed: ZeRO 0 to 3, with or without offload to the host's memory.

Runs on GPUs over NCCL and on CPUs over gloo. The optimizer is torch's AdamW in every case, so that nothing is compiled
and every launch does the same arithmetic. On what multiplies bfloat16 fast, ZeRO 1 to 3 keep the model in bfloat16 and
float32 weights in the optimizer; ZeRO 0 keeps it in float32 and multiplies in bfloat16, as one process does.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from prover.artifacts import disk_errors
from prover.config import DeepSpeedLaunch
from prover.device import Device, pick_device
from prover.errors import ConfigError
from prover.pretrained import load_model, quiet
from prover.training import lora, state
from prover.training.optimizer import CLIP, grouped
from prover.training.single import trained
from prover.training.zero_options import options

Values = Callable[[str], torch.Tensor]


class Fragment(msgspec.Struct, frozen=True):
    """What this process holds of a trained parameter: ``count`` elements from ``start`` on of the flat tensor."""

    name: str
    parameter: Any
    start: int
    count: int
    size: int
    """Of the whole tensor."""
    get: Values
    """The elements of a kind of state, flat float32."""
    put: Callable[[str, torch.Tensor], None]


class ZeroProcess:
    """One of the processes that a launcher started together (its variables RANK, WORLD_SIZE and LOCAL_RANK say which).

    Raises ConfigError where DeepSpeed is not installed.
    """

    model: Any
    device: Device
    _optimizer: Any

    def __init__(self, launch: DeepSpeedLaunch) -> None:
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError(
                "launch.type = 'deepspeed' needs the package deepspeed; run: pip install 'prover[deepspeed]'"
            )
        self.launch = launch
        self.device = pick_device("auto")
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if self.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        else:
            os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed would take what it finds of other kinds
        torch.set_num_threads(_threads())  # beside a GPU too: an optimizer in the host's memory is computed there
        import deepspeed.comm

        # An all-reduce for CPUs that DeepSpeed would compile for half a minute; gloo's serves.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.comm.init_distributed(verbose=False)
        self._alive: Any = None

    def load(self, path: Path, fast: bool) -> Any:
        self.options = options(self.launch, self.device, fast)
        half = fast and self.launch.zero > 0
        if self.launch.zero == 3:
            from transformers.integrations.deepspeed import HfDeepSpeedConfig

            self._alive = HfDeepSpeedConfig(self.options)  # while it lives, transformers splits weights as it loads
        return load_model(path, torch.bfloat16 if half else torch.float32, self.device)

    def prepare(self, model: Any, weight_decay: float) -> None:
        import deepspeed

        optimizer = torch.optim.AdamW(**grouped(model, weight_decay), fused=True)
        made: Any = deepspeed.initialize(model=model, optimizer=optimizer, config=self.options)
        self.model, self._optimizer, *_ = made

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        self.model.set_gradient_accumulation_boundary(last)
        self.model.backward(loss * self.world, scale_wrt_gas=False)  # DeepSpeed takes the mean over processes

    def step(self, rate: float) -> float:
        for part in self._optimizer.param_groups:
            part["lr"] = rate
        if self.launch.zero == 0:  # DeepSpeed would clip, but not say by how much
            norm = torch.nn.utils.clip_grad_norm_(self.model.module.parameters(), CLIP)
            self.model.step()
            return norm.item()
        self.model.step()
        norm = self.model.get_global_grad_norm()
        if getattr(self._optimizer, "overflow", False) or norm is None or norm < 0:
            return float("nan")  # DeepSpeed leaves such a step out, and some stages keep the norm of the one before
        return float(norm)

    def total(self, *values: float) -> tuple[float, ...]:
        together = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(together)
        return tuple(together.tolist())

    def save(self, work: Path, recipe: str, step: int, keep: int | None = None) -> None:
        folder = state.partial(work, step)
        if self.rank == 0:
            with disk_errors(work):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
        torch.distributed.barrier()
        pieces = [
            state.Piece(kind, f.name, f.start, f.get(kind)[: f.size - f.start])
            for number, f in enumerate(self._fragments())
            if self.launch.zero > 0 or number % self.world == self.rank  # all have all of it
            if f.start < f.size
            for kind in state.KINDS
        ]
        state.write_part(folder, self.rank, pieces)
        torch.distributed.barrier()
        if self.rank == 0:
            state.finish(work, recipe, step, keep)

    def restore(self, work: Path, recipe: str, step: int | None = None) -> int:
        if self.rank == 0:
            state.forget_partial(work)
        # The first process says which: hosts that share a file system see what is new in a folder at different times.
        (newest,) = self.total(state.newest(work) if self.rank == 0 else 0)
        held = state.opened(work, recipe, int(newest) if step is None else step)
        if held is None:
            return 0
        self._make_moments(held.step)
        for f in self._fragments():
            for kind in state.KINDS:
                if held.has(kind, f.name):
                    f.put(kind, held.read(kind, f.name, f.start, f.count, f.size))
        self._take_over()
        torch.distributed.barrier()
        return held.step

    def write(self, folder: Path | None, dtype: torch.dtype) -> None:
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param

        module = self.model.module
        adapted = lora.is_adapted(module)
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in module.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.launch.zero == 3):
                # What is trained has a more exact twin in the optimizer, unless nothing is split.
                exact = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
                if folder is not None:
                    whole = (parameter if exact is None else exact).detach()
                    tensors[name] = whole.to("cpu", whole.dtype if adapted else dtype, copy=True)
        if folder is not None:
            buffers = dict(module.named_buffers())
            tensors |= {
                name: buffer.to(dtype) if buffer.is_floating_point() else buffer
                for name, buffer in module.state_dict().items()
                if name in buffers
            }
            with quiet():
                if adapted:
                    lora.write(module, tensors, folder, dtype)
                else:
                    module.save_pretrained(folder, state_dict=tensors)
        torch.distributed.barrier()

    # What follows differs between the stages: where DeepSpeed keeps the optimizer's weights and moments.

    def _fragments(self) -> Iterator[Fragment]:
        """What this process holds, in the model's order."""
        reach = {0: self._whole, 3: self._local}.get(self.launch.zero, self._mapped)
        for name, parameter in trained(self.model.module).items():
            fragment = reach(name, parameter)
            if fragment is not None:
                yield fragment

    def _whole(self, name: str, parameter: Any) -> Fragment:
        """ZeRO 0: every process holds everything."""

        def held(kind: str) -> torch.Tensor:
            return parameter if kind == "weight" else self._optimizer.state[parameter][kind]

        def put(kind: str, values: torch.Tensor) -> None:
            with torch.no_grad():
                held(kind).copy_(values.view(parameter.shape))

        size = parameter.numel()
        return Fragment(name, parameter, 0, size, size, lambda kind: held(kind).flatten(), put)

    def _mapped(self, name: str, parameter: Any) -> Fragment | None:
        """ZeRO 1 and 2: a stretch of all weights end to end, which may begin and end within a tensor."""
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        place = mapping.lp_fragment_address

        inner = self._optimizer.optimizer
        within = mapping.get_hp_fragment_address()

        def get(kind: str) -> torch.Tensor:
            if kind == "weight":
                return mapping.get_hp_fragment()
            # Not through DeepSpeed's own view of it: that leaves out all groups of parameters but the first.
            (stretch,) = inner.param_groups[mapping.param_group_index]["params"]
            return inner.state[stretch][kind].narrow(0, within.start, within.numel)

        def put(kind: str, values: torch.Tensor) -> None:
            get(kind).data.copy_(values)

        return Fragment(name, parameter, place.start, place.numel, parameter.numel(), get, put)

    def _local(self, name: str, parameter: Any) -> Fragment:
        """ZeRO 3: of each tensor an equal share, the last one padded."""
        optimizer = self._optimizer
        count = parameter.ds_tensor.numel()

        def get(kind: str) -> torch.Tensor:
            return optimizer.get_local_fp32_param(parameter, None if kind == "weight" else kind)

        def put(kind: str, values: torch.Tensor) -> None:
            optimizer.set_local_hp_param(values, parameter, None if kind == "weight" else kind)

        return Fragment(name, parameter, self.rank * count, count, parameter.ds_numel, get, put)

    def _make_moments(self, step: int) -> None:
        """The optimizer's moments, which it would make at its first step, to be filled."""
        optimizer = self._optimizer
        inner = optimizer if self.launch.zero == 0 else optimizer.optimizer
        if self.launch.zero == 3:
            parameters = optimizer.fp32_partitioned_groups_flat
        else:
            parameters = [parameter for part in inner.param_groups for parameter in part["params"]]
        for parameter in parameters:
            inner.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                **{kind: torch.zeros_like(parameter, dtype=torch.float32) for kind in state.KINDS[1:]},
            }

    def _take_over(self) -> None:
        """Make the model's weights those of the optimizer."""
        optimizer = self._optimizer
        if self.launch.zero in (1, 2):
            optimizer.update_lp_params()
        elif self.launch.zero == 3:
            optimizer._partition_all_parameters()
            for number in range(len(optimizer.fp16_groups)):
                optimizer._reassign_or_swap_out_partitioned_parameters(number)
            optimizer._post_step(set())


def _threads() -> int:
    """This process's share of the cores, where the launcher has not dealt them out."""
    told, beside = os.environ.get("OMP_NUM_THREADS"), os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE"))
    return int(told) if told else max(1, len(os.sched_getaffinity(0)) // int(beside or 1))
