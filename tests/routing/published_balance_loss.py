"""The load-balancing loss as transformers computes it for Mixtral and OLMoE; prints the values that losses_test.cpp holds.

The logits are a formula, so that both sides make the same ones without a file.
"""
import math

import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func as mixtral
from transformers.models.olmoe.modeling_olmoe import load_balancing_loss_func as olmoe


def logits(layer: int, rows: int, experts: int) -> torch.Tensor:
    cells = [2 * math.sin(1.7 * ((layer * rows + t) * experts + e) + 0.3) + 0.5 * math.cos(e) for t in range(rows) for e in range(experts)]
    return torch.tensor(cells, dtype=torch.float64).view(rows, experts)


for layers, rows, experts, k in [(1, 6, 4, 2), (3, 10, 8, 2), (2, 7, 6, 1)]:
    gates = tuple(logits(layer, rows, experts) for layer in range(layers))
    print(layers, rows, experts, k, *(f"{f(gates, experts, k).item():.8f}" for f in (mixtral, olmoe)))
