"""Norms of the gradients, on request."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

__all__ = ["GradientNorms"]


class GradientNorms(Callback):
    """Log the 2-norms of the gradients before they are clipped, with any logger, as means over an epoch.

    `grad_norm/total` of all parameters together and `grad_norm/<part>` of each part of the network (`encoder`, `umc`,
    `flow`, `classifier`, ...) and of the loss. Not on by default: `trainer.callbacks: [GradientNorms]`.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Sum the squares by part."""
        squares: dict[str, torch.Tensor] = {}
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                part = name.removeprefix("network.").split(".")[0]
                squares[part] = (
                    squares.get(part, torch.zeros((), device=parameter.device)) + parameter.grad.square().sum()
                )
        norms = {part: square.sqrt() for part, square in squares.items()}
        norms["total"] = torch.stack(list(squares.values())).sum().sqrt()
        pl_module.log_dict({f"grad_norm/{part}": norm for part, norm in norms.items()}, on_step=False, on_epoch=True)
