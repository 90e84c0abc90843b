"""Several processes started by ``torchrun``: gloo on CPUs, nccl on GPUs.

Losses are built from sums over the whole batch (`global_sum`), so that two processes compute the
very gradient that one would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as collective
from torch.nn.parallel import DistributedDataParallel

from weedseg.errors import ConfigError, RuntimeUnavailableError


def rank() -> int:
    """Return the number of this process, 0 when there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started; does nothing in a process started by hand."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # gloo as well where there are GPUs: for --device cpu, and for `gather`.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """Turn auto, cpu or cuda into a device, this process's own GPU where there are several.

    Raises:
        RuntimeUnavailableError: A GPU was asked for and there is none.
    """
    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise RuntimeUnavailableError(
            "no CUDA device", "one for --device cuda", "use --device auto or see weedseg doctor"
        )
    if name == "cpu" or not usable:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def own_slots(batch: int) -> range:
    """Return which tiles of a batch this process makes.

    Raises:
        ConfigError: There are more processes than tiles.
    """
    if batch < world_size():
        raise ConfigError(
            f"a batch of {batch} for {world_size()} processes",
            "at least one tile for each",
            "raise pretrain.batch and finetune.batch, or start fewer processes",
        )
    return range(rank(), batch, world_size())


def wrap(net: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a network so that gradients are averaged over processes, if there are several."""
    if world_size() == 1:
        return net
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(net, device_ids=ids)


def global_sum(value: Tensor) -> Tensor:
    """Sum a tensor over all processes, with gradient."""
    if world_size() == 1:
        return value
    total: Tensor = collective.all_reduce(value)  # type: ignore[no-untyped-call]
    return total


def batch_mean(values: Tensor) -> Tensor:
    """Average one value per tile, (N,), over the tiles of all processes, with gradient."""
    if world_size() == 1:
        return values.mean()
    return global_sum(values.sum()) / global_sum(torch.ones_like(values).sum())


def gather(value: Any) -> list[Any]:
    """Collect one picklable object from every process, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Wait until every process is here."""
    gather(None)


def any_process(flag: bool) -> bool:
    """Tell whether a flag is set in any process."""
    return any(gather(flag))
