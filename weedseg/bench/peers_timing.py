"""How long do the networks of the comparison take? All exported the same way, timed in one run.

Shapes: T tile px.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.bench.peers import PeersPlan
from weedseg.bench.peers_nets import OURS, PEERS, build_peer
from weedseg.classes import ClassTable
from weedseg.edge.session import import_onnxruntime
from weedseg.errors import ConfigError
from weedseg.export.onnx_graph import logits_graph, ship

SHIPPED = "ours, as shipped"
"""Our graph with class map and confidence in it; all others end at the logits."""
WARM, TIMED = 2, 3
"""Runs of a network in its turn: not timed, so that caches are its own; timed."""

Run = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How to time."""

    tile_px: int = 512
    rounds: int = 20
    """Turns of each network."""
    threads: int = 1


def time_peers(plan: PeersPlan, timing: Timing) -> dict[str, Any]:
    """Export the trained networks of seed 0 and time them in turns, batch 1.

    Args:
        plan: The comparison that trained them.
        timing: Size, rounds, threads.

    Returns:
        One line: of each network its parameters, multiply-adds, size of its file, and the median
        time of every round, ms. Times of different lines do not compare.

    Raises:
        ConfigError: A network was not trained, or its weights are gone.
        ExportError: A network cannot be exported.
        RuntimeUnavailableError: A package is missing.
    """
    networks: dict[str, dict[str, Any]] = {}
    runs: dict[str, Run] = {}
    classes = plan.dataset.farm.classes
    for name in [arm for arm in plan.arms if arm in PEERS]:
        net = _trained(plan, name, len(classes))
        for graph, data in _graphs(name, net, classes, timing.tile_px).items():
            run = _session(data, timing)
            networks[graph] = {**_size(net, timing.tile_px), "file_bytes": len(data)}
            if graph != SHIPPED:
                networks[graph]["max_abs_logit_difference"] = _difference(net, run, timing)
            runs[graph] = partial(run, _picture(timing.tile_px))
    before = os.getloadavg()[0]
    rounds = time_in_turns(runs, timing.rounds)
    for graph, times in rounds.items():
        networks[graph] |= {"ms": statistics.median(times), "ms_rounds": times}
    return {
        "bench": "peers",
        "tile_px": timing.tile_px,
        "batch": 1,
        "threads": timing.threads,
        "rounds": timing.rounds,
        "networks": networks,
        "load": [before, os.getloadavg()[0]],
        "machine": platform.processor() or platform.machine(),
        "onnxruntime": import_onnxruntime().__version__,
        "version": __version__,
        "commit": commit(),
    }


def time_in_turns(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Time each in its turn, round by round, so that what slows the machine slows all.

    Args:
        runs: What to time, by name.
        rounds: Turns of each.

    Returns:
        By name, the median time of each turn, ms.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(runs)).tolist():
            own = []
            for number in range(WARM + TIMED):
                started = time.perf_counter()
                runs[name]()
                if number >= WARM:
                    own.append(1e3 * (time.perf_counter() - started))
            times[name].append(round(statistics.median(own), 4))
    return times


def _trained(plan: PeersPlan, name: str, num_classes: int) -> nn.Module:
    """Load a network that learned from scratch, seed 0.

    Raises:
        ConfigError: There are no weights.
    """
    file = plan.folder(name, 0) / "weights.safetensors"
    if not file.is_file():
        raise ConfigError(
            f"no weights of '{name}' in {plan.work}",
            "those of a finished run",
            "name the --work folder of the comparison, or run it without --timing",
        )
    net = build_peer(name, num_classes, "none", 0)
    net.load_state_dict(load(file.read_bytes()))
    return net.eval().requires_grad_(False)


def _graphs(name: str, net: nn.Module, classes: ClassTable, tile_px: int) -> dict[str, bytes]:
    twin = logits_graph(net, tile_px)
    graphs = {name: twin.SerializeToString()}
    if name == OURS:
        graphs[SHIPPED] = ship(twin, classes, 1.0).SerializeToString()
    return graphs


def _session(data: bytes, timing: Timing) -> Callable[[npt.NDArray[np.float32]], Any]:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = timing.threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _picture(tile_px: int) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(0).random((1, 3, tile_px // 8, tile_px // 8), np.float32)
    return noise.repeat(8, axis=2).repeat(8, axis=3)


def _size(net: nn.Module, tile_px: int) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.from_numpy(_picture(tile_px)))
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "macs": counter.get_total_flops() // 2,
    }


def _difference(
    net: nn.Module, run: Callable[[npt.NDArray[np.float32]], Any], timing: Timing
) -> float:
    images = _picture(timing.tile_px)
    with torch.no_grad():
        logits = net(torch.from_numpy(images)).numpy()
    return float(np.abs(run(images)[0] - logits).max())
