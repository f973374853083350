"""A task of one's own: forecasting a noisy time series with a GRU.

    hyperprune search examples/own_task.py:task --out runs/forecast

A task says what is trained (model, batches, loss) and where its recurrence sits; the recipe says how.
"""

import math

import torch
from torch import Tensor, nn

import hyperprune as hp


class Forecaster(nn.Module):
    """A GRU that predicts the next value of a series."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, series_TB1: Tensor) -> Tensor:
        hidden_TBH, _ = self.rnn(series_TB1)
        return self.output(hidden_TBH)


class Forecast(hp.Task):
    """Sums of two sines with a random phase, plus noise; the loss is the mean squared error."""

    name = "forecast"
    metric = "mean squared error"
    sparsity = 0.8
    recipe = hp.Recipe(optimizer="adam", learning_rate=5e-3, clip_norm=1.0)
    search_defaults = {"candidates": 4, "first_epochs": 1, "round_epochs": 1, "final_epochs": 6}

    def model(self, generator: torch.Generator) -> nn.Module:
        model = Forecaster(hidden_size=24)
        for weight in model.parameters():
            nn.init.uniform_(weight, -0.2, 0.2, generator=generator)
        return model

    def batches(self, split: str, epoch: int) -> list[Tensor]:
        first_seed = {"train": 0, "valid": 1000, "test": 2000}[split]
        return [self._series(first_seed + number) for number in range(20 if split == "train" else 4)]

    def loss(self, model: nn.Module, batch: Tensor, state: None) -> hp.BatchLoss:
        error = model(batch[:-1]) - batch[1:]
        return hp.BatchLoss(error.square().mean(), num_items=error.numel())

    def recurrent(self, model: nn.Module, batch: Tensor) -> list[hp.RecurrentRun]:
        assert isinstance(model, Forecaster)
        return [hp.RecurrentRun(model.rnn, batch)]

    def baseline(self) -> tuple[str, float]:
        series = torch.cat(self.batches("valid", 0), dim=1)
        return "variance of the series", series.var().item()

    def spectrum_batch(self) -> Tensor:
        return self._series(1000)[:40, :4]

    def _series(self, seed: int) -> Tensor:
        """(T, B, 1): 60 steps of 16 series."""
        random = torch.Generator().manual_seed(seed)
        phase_B = 2 * math.pi * torch.rand(16, generator=random)
        time_T1 = torch.arange(60.0).unsqueeze(1)
        waves_TB = torch.sin(0.3 * time_T1 + phase_B) + 0.5 * torch.sin(0.11 * time_T1 - phase_B)
        return (waves_TB + 0.1 * torch.randn(waves_TB.shape, generator=random)).unsqueeze(-1)


task = Forecast()
