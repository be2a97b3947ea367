"""Attention over several streams at once, each with its own rows, without padding.

The model sees the new tokens of all streams as one long row. `Batch`, the cache that it is given, keeps
each stream's new keys and values with that stream, and answers with one part for each; the attention
function, registered under `IMPLEMENTATION`, takes these. Nothing of transformers is changed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from shieldguard.judges.local.rows import Rows

IMPLEMENTATION = "shieldguard_streams"


class Part(NamedTuple):
    """One stream in one layer: where its tokens are in the long row, and what they attend to."""

    span: slice
    keys: Tensor  # key-value heads x length x size
    values: Tensor
    mask: Tensor | None


class Batch(Cache):
    """The streams of one forward pass, and how many tokens each of them adds.

    `heads_per_group`: how many query heads share a key-value head.
    """

    def __init__(self, members: Sequence[tuple[Rows, int]], heads_per_group: int) -> None:
        super().__init__(layers=[])
        self._members = []
        begin = 0
        for rows, new in members:
            mask = _causal(rows, new, heads_per_group)
            self._members.append((rows, slice(begin, begin + new), mask))
            begin += new

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Write each stream's share of a layer's keys and values (1 x heads x tokens x size) to its rows."""
        parts = []
        for rows, span, mask in self._members:
            keys, values = rows.write(layer_idx, key_states[0, :, span], value_states[0, :, span])
            parts.append(Part(span, keys, values, mask))
        return parts, None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # each stream has a length of its own; positions are given


def _causal(rows: Rows, new: int, heads_per_group: int) -> Tensor | None:
    """What each new token may not see: those behind it. One token may see all."""
    if new == 1:
        return None
    length = len(rows) + new
    mask = torch.full((new, length), float("-inf"), dtype=rows.dtype, device=rows.device)
    return mask.triu(length - new + 1).repeat(heads_per_group, 1)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Sequence[Part],
    value: None,
    attention_mask: None,
    *,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """`query`: 1 x heads x tokens of all streams x size. The result: 1 x tokens x heads x size."""
    return torch.cat([_attend(query[0, :, part.span], part, scaling) for part in key]).unsqueeze(0), None


def _attend(query: Tensor, part: Part, scaling: float) -> Tensor:
    """The query heads of a group become rows of one product, so that no key-value head is repeated."""
    heads, new, size = query.shape
    groups = len(part.keys)
    output = scaled_dot_product_attention(
        query.reshape(1, groups, heads // groups * new, size),
        part.keys.unsqueeze(0),
        part.values.unsqueeze(0),
        attn_mask=part.mask,
        scale=scaling,
    )
    return output.reshape(heads, new, size).transpose(0, 1)  # kernels differ in their strides


AttentionInterface.register(IMPLEMENTATION, attend)
