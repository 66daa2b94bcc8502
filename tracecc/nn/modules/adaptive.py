"""A softmax over many classes whose rare ones are grouped into small clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.nn.modules.container import ModuleList, Sequential
from tracecc.nn.modules.linear import Linear
from tracecc.nn.modules.module import Module
from tracecc.tensor import Tensor
from tracecc_ir.types import DType


class AdaptiveLogProbabilities(NamedTuple):
    """The log probability of each target, and their mean loss."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Grave et al., 2017: frequent classes in the head, rare ones in clusters of smaller width.

    Args:
        in_features: of the input.
        n_classes: sorted by frequency.
        cutoffs: where clusters begin, increasing.
        div_value: each cluster's width is that of the last one divided by this.
        head_bias: whether the head has a bias.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        given = list(cutoffs)
        if not given:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if given != sorted(set(given)) or given[0] <= 0 or given[-1] > n_classes - 1:
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an increasing "
                "order, where each value is between 1 and n_classes-1"
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs, self.div_value, self.head_bias = [*given, n_classes], div_value, head_bias
        self.shortlist_size, self.n_clusters = given[0], len(given)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, dtype=dtype)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            width = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(
                    Linear(in_features, width, bias=False, dtype=dtype),
                    Linear(width, size, bias=False, dtype=dtype),
                )
            )

    def reset_parameters(self) -> None:
        for layer in (self.head, *(part for cluster in self.tail for part in cluster)):
            layer.reset_parameters()

    def log_prob(self, input: Tensor) -> Tensor:
        """[N, n_classes]: every class's log probability."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            gate = head[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(F.log_softmax(cluster(input), 1) + gate)
        return tc.cat(parts, 1)

    def forward(self, input: Tensor, target: Tensor) -> AdaptiveLogProbabilities:
        """From [N, in_features] or [in_features] and class numbers."""
        batched = target.ndim > 0
        x, y = (input, target) if batched else (input.unsqueeze(0), target.unsqueeze(0))
        output = self.log_prob(x).gather(1, y.unsqueeze(1)).squeeze(1)
        loss = -output.mean()
        return AdaptiveLogProbabilities(output if batched else output.squeeze(0), loss)

    def predict(self, input: Tensor) -> Tensor:
        """[N]: the likeliest class."""
        return self.log_prob(input).argmax(1)
