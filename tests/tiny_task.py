"""A task that trains in milliseconds, for tests; `hyperprune search tests/tiny_task.py:task` runs it too."""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn

import hyperprune as hp


class TinyModel(nn.Module):
    """One LSTM layer of eight units with dropout on its output, and a linear readout."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(2, 8)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(8, 2)

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, after = self.rnn(inputs, state)
        return self.output(self.dropout(hidden)), after


class TinyTask(hp.Task):
    """Predict the next value of a rotating point; SNT-ASGD averages from the first epoch without progress."""

    name = "tiny"
    metric = "squared error"
    sparsity = 0.5
    recipe = hp.Recipe(optimizer="snt_asgd", learning_rate=0.5, clip_norm=0.25, patience=1)
    spectrum_warmup = 2
    search_defaults = {"candidates": 4, "first_epochs": 1, "round_epochs": 1, "final_epochs": 5}

    def model(self, generator: torch.Generator) -> nn.Module:
        model = TinyModel()
        for weight in model.parameters():
            nn.init.uniform_(weight, -0.4, 0.4, generator=generator)
        return model

    def batches(self, split: str, epoch: int) -> list[Tensor]:
        time.sleep(float(os.environ.get("TINY_TASK_SECONDS", "0")))  # gives a test time to kill
        steps = torch.arange(41.0).view(-1, 1)
        phases = torch.arange(6.0) + {"train": 0.0, "valid": 0.5, "test": 0.7}[split]
        series = torch.stack([torch.sin(0.4 * steps + phases), torch.cos(0.4 * steps + phases)], dim=2)
        return [series[start : start + 11] for start in range(0, 40, 10)]

    def loss(self, model: nn.Module, batch: Tensor, state: tuple[Tensor, Tensor] | None) -> hp.BatchLoss:
        predicted, state = model(batch[:-1], state)
        return hp.BatchLoss((predicted - batch[1:]).square().mean(), batch[1:].numel(), state)

    def recurrent(self, model: nn.Module, batch: Tensor) -> list[hp.RecurrentRun]:
        assert isinstance(model, TinyModel)
        return [hp.RecurrentRun(model.rnn, batch)]


task = TinyTask()
