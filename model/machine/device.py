"""The one door through which arrays and batches reach the device that computes; on the CPU it copies nothing."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

_Batch = TypeVar("_Batch")


def accelerator() -> torch.device | None:
    """The GPU of this process; None where there is none."""
    return torch.device("cuda") if torch.cuda.is_available() else None


def on(device: torch.device, what: np.ndarray | Tensor) -> Tensor:
    """An array or tensor there."""
    tensor = torch.from_numpy(what) if isinstance(what, np.ndarray) else what
    return tensor.to(device, non_blocking=True)


def batch_on(device: torch.device, batch: _Batch) -> _Batch:
    """All tensors of a batch (in tuples, dicts and dataclasses) there; arrays stay where the network's own code takes them."""
    return _each(batch, lambda t: on(device, t)) if device.type != "cpu" else batch


def pinned(batch: _Batch) -> _Batch:
    """All tensors of a batch in pinned memory, from which a GPU copies while it computes."""
    return _each(batch, lambda t: t.pin_memory())


def _each(what: Any, change: Any) -> Any:
    if isinstance(what, Tensor):
        return change(what)
    if isinstance(what, dict):
        return {k: _each(v, change) for k, v in what.items()}
    if isinstance(what, tuple | list):
        return type(what)(_each(v, change) for v in what)
    if is_dataclass(what) and not isinstance(what, type):
        found = {f.name: getattr(what, f.name) for f in fields(what)}
        return replace(what, **{k: _each(v, change) for k, v in found.items() if isinstance(v, Tensor)})
    return what
