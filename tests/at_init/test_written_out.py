"""Recurrent kernels written out: the same function as torch's, where they are taken at all."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from hyperprune.at_init import written_out
from hyperprune.at_init.written_out import WrittenOut


@pytest.fixture
def taken(monkeypatch):
    """How often a kernel was written out."""
    runs = []
    run = written_out._run
    monkeypatch.setattr(written_out, "_run", lambda *args: runs.append(1) or run(*args))
    return runs


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("num_layers", "bias"), [(1, True), (2, False), (2, True)])
@pytest.mark.parametrize("kind", ["RNN", "RNN_RELU", "GRU", "LSTM"])
def test_written_out_they_give_what_torch_gives(kind, num_layers, bias, batch_first, taken):
    torch.manual_seed(0)
    more = {"nonlinearity": "relu"} if kind == "RNN_RELU" else {}
    module = getattr(nn, kind.partition("_")[0])(
        3, 4, num_layers=num_layers, bias=bias, batch_first=batch_first, **more
    ).double()
    inputs = torch.randn(5, 2, 3, dtype=torch.float64)
    inputs = inputs.transpose(0, 1) if batch_first else inputs
    start = torch.randn(num_layers, 2, 4, dtype=torch.float64)
    start = (start, torch.randn_like(start)) if kind == "LSTM" else start
    expected = module(inputs, start)
    with WrittenOut():
        found = module(inputs, start)
    assert taken == [1]
    torch.testing.assert_close(found, expected)


def test_what_is_not_plain_stays_torchs(taken):
    inputs = torch.randn(5, 2, 3)
    with WrittenOut():
        nn.GRU(3, 4, bidirectional=True)(inputs)
        nn.LSTM(3, 4, proj_size=2)(inputs)
        nn.GRU(3, 4, num_layers=2, dropout=0.5)(inputs)
        nn.LSTM(3, 4)(pack_sequence([inputs[:, 0], inputs[:3, 1]]))
        assert taken == []
        assert not torch.backends.mkldnn.enabled
        nn.GRU(3, 4, num_layers=2, dropout=0.5).eval()(inputs)
    assert taken == [1]
    assert torch.backends.mkldnn.enabled
