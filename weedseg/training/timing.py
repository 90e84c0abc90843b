"""Time a few steps of a task before it starts, to plan how many fit into an hour."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from weedseg.training.loop import Task


def step_seconds(task: Task, device: torch.device, num: int = 4, warm_up: int = 2) -> float:
    """Measure the median time of a training step on one batch, without preparing it.

    The weights of the task's network change: throw the task away afterwards.

    Args:
        task: The task to be planned.
        device: Where it will run.
        num: Steps that count.
        warm_up: Steps before them.

    Returns:
        Seconds: forward, loss, backward, optimiser.
    """
    net = task.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(net.parameters(), 1e-6)
    batch: Any = task.prepare(0, 0)
    times = []
    for _ in range(warm_up + num):
        started = time.perf_counter()
        loss, _values = task.loss(net, batch, 0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        loss.item()
        times.append(time.perf_counter() - started)
    return statistics.median(times[warm_up:])
