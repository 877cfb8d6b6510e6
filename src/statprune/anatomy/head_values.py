"""Heads whose values have fewer columns than their queries and keys.

What a head returns is its scores times its values, and a part of the output projection reads that: values
and the columns that read them can be turned together, and columns left out, whatever the scores are.
Modelling code wants values as wide as keys. So zeros stand in for the columns that are gone, and what is
made of them is left out again.

Source: the value dimension of DeepSeek-AI, "DeepSeek-V2", 2024, and of MiMo-V2, which differs from that of
keys.
"""

from typing import Any

from torch import Tensor, nn


def columns_read(reader: Any, head_dim: int) -> int:
    """Of every head so many columns are read by this output projection."""
    return reader.value_dim if isinstance(reader, NarrowReader) else head_dim


class NarrowValues(nn.Module):
    """The value projection: of every head `value_dim` columns, and zeros up to `head_dim`.

    It is no `nn.Linear`: what looks for those (adapters, servers) expects of one what its weight makes.
    """

    weight: Tensor
    bias: Tensor | None
    head_dim: int
    value_dim: int

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) -> (..., heads * head_dim)."""
        made = nn.functional.linear(hidden, self.weight, self.bias)
        made = made.reshape(*made.shape[:-1], -1, self.value_dim)
        return nn.functional.pad(made, (0, self.head_dim - self.value_dim)).flatten(-2)


class NarrowReader(nn.Module):
    """The output projection: of every head it reads the first `value_dim` of `head_dim` columns."""

    weight: Tensor
    bias: Tensor | None
    head_dim: int
    value_dim: int

    def forward(self, read: Tensor) -> Tensor:
        """(..., heads * head_dim) -> (..., outputs)."""
        heads = read.reshape(*read.shape[:-1], -1, self.head_dim)
        return nn.functional.linear(heads[..., : self.value_dim].flatten(-2), self.weight, self.bias)


def narrow_head_values(values: Any, reader: Any, head_dim: int, value_dim: int) -> None:
    """Make two plain linear layers, whose weights are as narrow as that already, compute with such heads."""
    for linear, kind in ((values, NarrowValues), (reader, NarrowReader)):
        linear.__class__ = kind
        vars(linear).pop("forward", None)  # of the class before: accelerate leaves one where it has been
        linear.out_features, linear.in_features = linear.weight.shape
        linear.head_dim, linear.value_dim = head_dim, value_dim
