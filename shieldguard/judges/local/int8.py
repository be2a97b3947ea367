"""Linear layers with weights of eight bits, for CPUs: less memory, and less to read for each token written.

Weights have a scale for each output, activations one for each token, and sums are of integers. So a token's
result depends on nothing that shares its forward pass, and what is cached stays as exact as it was.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """`linear` with its weights rounded to 8 bits. Computes in the type of what it is given."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-9) / 127
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.squeeze(1))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, given: Tensor) -> Tensor:
        rows = given.reshape(-1, given.shape[-1]).float()
        scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-9) / 127
        sums = torch._int_mm((rows / scale).round().to(torch.int8), self.weight.t())
        result = sums.float().mul_(scale).mul_(self.scale).to(given.dtype)
        if self.bias is not None:
            result += self.bias
        return result.view(*given.shape[:-1], -1)


def quantise(model: Any) -> None:
    """Round every linear layer but the last, which is most often the embedding as well."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child is not model.get_output_embeddings():
                setattr(module, name, Int8Linear(child))
