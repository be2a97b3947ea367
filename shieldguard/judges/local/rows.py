"""What the model computed for one text: a row of keys and values a token, and the tokens they stand for.

The tokens are what makes a cache safe: rows are used again only as far as their tokens are those that are
asked for. So a probe at the end, a token that a longer text splits otherwise, and a text that is another
altogether are all the same thing: rows behind the common prefix, which are dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a row is made of."""

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def row_bytes(self) -> int:
        return 2 * self.layers * self.heads * self.size * self.dtype.itemsize


class Rows:
    """Keys and values of every layer in buffers made ahead: appending copies the new rows alone, and
    dropping rows changes a number. Rows are written first and count once their tokens are known."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.tokens: list[int] = []
        self.capacity = 0
        self._keys = [self._buffer(0) for _ in range(shape.layers)]
        self._values = [self._buffer(0) for _ in range(shape.layers)]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def dtype(self) -> torch.dtype:
        return self.shape.dtype

    @property
    def device(self) -> torch.device:
        return self.shape.device

    @property
    def bytes(self) -> int:
        return self.capacity * self.shape.row_bytes

    def grow(self, capacity: int) -> None:
        """Make room; one layer at a time, so that little is held twice."""
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                buffers[layer] = self._buffer(capacity)
                buffers[layer][:, : len(self)] = old[:, : len(self)]
        self.capacity = capacity

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put new rows (heads x tokens x size) behind those that count. Answers with both."""
        end = len(self) + keys.shape[1]
        for buffers, new in ((self._keys, keys), (self._values, values)):
            buffers[layer][:, len(self) : end] = new
        return self._keys[layer][:, :end], self._values[layer][:, :end]

    def count(self, tokens: Sequence[int]) -> None:
        """The rows just written stand for these tokens."""
        self.tokens += tokens

    def crop(self, length: int) -> None:
        del self.tokens[length:]

    def copy(self, other: Self, length: int) -> None:
        """Begin anew with the first rows of another text."""
        self.tokens = other.tokens[:length]
        for own, others in ((self._keys, other._keys), (self._values, other._values)):
            for mine, theirs in zip(own, others, strict=True):
                mine[:, :length] = theirs[:, :length]

    def _buffer(self, capacity: int) -> Tensor:
        shape = self.shape
        return torch.empty(shape.heads, capacity, shape.size, dtype=shape.dtype, device=shape.device)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return at
    return min(len(one), len(other))
