"""The AWD-LSTM language model with a mixture of softmaxes.

LSTM layers whose recurrent matrices lose single weights at random in training (weight drop), dropout masks
that stay fixed over a window, penalties on the output's size and change, and a next-word distribution mixed
from several softmaxes:

    p(w | h) = Σ_k π_k(h) · softmax_w(D tanh(L_k h) + b),   π(h) = softmax(P h),   D the embedding

References:
    Merity, Keskar, Socher (2018), Regularizing and optimizing LSTM language models, §2 and §4.
    Yang, Dai, Salakhutdinov, Cohen (2018), Breaking the softmax bottleneck, §2.3.

Deviations from the published code: windows have one length (there it is drawn anew and the learning rate
follows it), and the mixture is computed in logarithms, so that no 1e-8 has to be added to it.

Axes: T time, B batch, V words, E embedding, H hidden of the last layer, K experts, N = T·B.
"""

import math
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from hyperprune.models.awd_settings import AWDSettings
from hyperprune.models.dropout import embed_words, locked_dropout
from hyperprune.models.language import LanguageModel, check_language_model
from hyperprune.models.start import draw_weights

_LayerState = tuple[Tensor, Tensor]
State = tuple[_LayerState, ...]  # (h, c), each (1, B, H of the layer), for each layer


def drop_weights(
    lstm: nn.LSTM, inputs: Float[Tensor, "T B F"], state: _LayerState | None, rate: float
) -> tuple[Float[Tensor, "T B H"], _LayerState]:
    """Run an LSTM layer whose recurrent weights are dropped at `rate`, the same ones for all time steps.

    The parameter itself is left alone: what is zero in it stays zero, and gradients reach the raw weights.

    Args:
        lstm: one layer with biases, time first.
        inputs: (T, B, F).
        state: (h, c), each (1, B, H); None starts from zero.
        rate: probability of dropping, in [0, 1); survivors are scaled by 1 / (1 - rate).
    """
    if state is None:
        zeros = inputs.new_zeros(1, inputs.shape[1], lstm.hidden_size)
        state = (zeros, zeros)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weight_ih, weight_hh, bias_ih, bias_hh = (lstm.get_parameter(name) for name in names)
    weights = [weight_ih, functional.dropout(weight_hh, rate), bias_ih, bias_hh]
    outputs, h, c = torch.lstm(inputs, state, weights, True, 1, 0.0, True, False, False)
    return outputs, (h, c)


@final
class AWDLSTM(LanguageModel):
    """AWD-LSTM-MoS.

    Parameters: `embedding.weight` (V, E), which is the decoder too; `rnns.{i}.*` (one `nn.LSTM` layer each);
    `prior.weight` (K, H); `latent.weight` (K·E, H), `latent.bias`; `decoder_bias` (V).

    Args:
        settings: sizes, rates, penalties.
        vocabulary_size: V, at least 2.
        generator: source of the initial weights.

    Raises:
        InputError: a vocabulary below two words, or settings of another kind of model.
    """

    kind = "awd_lstm_mos"

    def __init__(self, settings: AWDSettings, vocabulary_size: int, generator: torch.Generator) -> None:
        super().__init__()
        check_language_model(self.kind, settings, vocabulary_size)
        self.settings: AWDSettings = settings
        sizes = [settings.embedding_size, *settings.layer_sizes]
        # torch.nn draws start values from the global generator; they are all overwritten below.
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(vocabulary_size, settings.embedding_size)
            self.rnns = nn.ModuleList(nn.LSTM(*pair) for pair in pairwise(sizes))
            self.prior = nn.Linear(sizes[-1], settings.num_experts, bias=False)
            self.latent = nn.Linear(sizes[-1], settings.num_experts * settings.embedding_size)
        self.decoder_bias = nn.Parameter(torch.zeros(vocabulary_size))
        self._reset_parameters(generator)

    def forward(
        self, tokens: Int64[Tensor, "T B"], state: State | None = None
    ) -> tuple[Float[Tensor, "T B V"], State]:
        """Score the word after each of `tokens` (T, B).

        Args:
            state: (h, c) of each layer; None starts from zero.

        Returns:
            Log-probabilities (T, B, V), and the last state.
        """
        outputs, _, last_state = self._outputs(tokens, state)
        log_prior_NK, logits_NKV = self._mixture(outputs)
        log_NKV = logits_NKV.log_softmax(-1) + log_prior_NK.unsqueeze(-1)
        return log_NKV.logsumexp(1).view(*tokens.shape, -1), last_state

    def loss(
        self, tokens: Int64[Tensor, "T B"], targets: Int64[Tensor, "T B"], state: State | None = None
    ) -> tuple[Float[Tensor, ""], State]:
        """Mean cross entropy per word, in training with the two activation penalties, and the last state."""
        outputs, raw_outputs, last_state = self._outputs(tokens, state)
        log_prior_NK, logits_NKV = self._mixture(outputs)
        targets_NK = targets.flatten().unsqueeze(1).expand(-1, self.settings.num_experts)
        # The experts' probabilities of the target alone: the mixture over all V words is never made.
        surprise_NK = functional.cross_entropy(
            logits_NKV.flatten(0, 1), targets_NK.flatten(), reduction="none"
        ).view_as(log_prior_NK)
        loss = -(log_prior_NK - surprise_NK).logsumexp(1).mean()
        if self.training:
            loss = loss + self._penalties(outputs, raw_outputs)
        return loss, last_state

    def recurrent_runs(
        self, tokens: Int64[Tensor, "T B"], state: State | None = None
    ) -> list[tuple[nn.Module, Tensor, _LayerState | None]]:
        """One entry for each layer, driven by the layer below, with whole weights."""
        runs: list[tuple[nn.Module, Tensor, _LayerState | None]] = []
        with torch.no_grad():
            inputs = embed_words(tokens, self.embedding.weight)
            for lstm, layer_state in zip(self.rnns, self._layer_states(state), strict=True):
                runs.append((lstm, inputs, layer_state))
                inputs, _ = lstm(inputs, layer_state)
        return runs

    def _outputs(self, tokens: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """The last layer's outputs after and before dropout, and the last state."""
        settings, training = self.settings, self.training
        embedded = embed_words(tokens, self.embedding.weight, settings.dropout_embedding, training=training)
        below = locked_dropout(embedded, settings.dropout_input, training=training)
        last_state: list[_LayerState] = []
        raw = below
        for index, (lstm, layer_state) in enumerate(zip(self.rnns, self._layer_states(state), strict=True)):
            assert isinstance(lstm, nn.LSTM)
            if training and settings.weight_drop:
                raw, after = drop_weights(lstm, below, layer_state, settings.weight_drop)
            else:
                raw, after = lstm(below, layer_state)
            last_state.append(after)
            is_last = index == settings.num_layers - 1
            rate = settings.dropout_output if is_last else settings.dropout_hidden
            below = locked_dropout(raw, rate, training=training)
        return below, raw, tuple(last_state)

    def _layer_states(self, state: State | None) -> State | tuple[None, ...]:
        return (None,) * self.settings.num_layers if state is None else state

    def _mixture(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """ln π (N, K), and each expert's logits (N, K, V), from outputs (T, B, H)."""
        settings = self.settings
        latent = torch.tanh(self.latent(outputs))
        latent = locked_dropout(latent, settings.dropout_latent, training=self.training)
        latent_NKE = latent.flatten(0, 1).unflatten(1, (-1, settings.embedding_size))
        logits_NKV = functional.linear(latent_NKE, self.embedding.weight, self.decoder_bias)
        return self.prior(outputs).log_softmax(-1).flatten(0, 1), logits_NKV

    def _penalties(self, outputs: Tensor, raw_outputs: Tensor) -> Tensor:
        """α · mean square of the dropped output + β · mean square of the output's change (AR and TAR)."""
        penalty = self.settings.activation_penalty * outputs.square().mean()
        if len(raw_outputs) > 1:
            penalty = penalty + self.settings.change_penalty * raw_outputs.diff(dim=0).square().mean()
        return penalty

    @torch.no_grad()
    def _reset_parameters(self, generator: torch.Generator) -> None:
        settings = self.settings
        self.embedding.weight.uniform_(-settings.init_range, settings.init_range, generator=generator)
        for lstm in self.rnns:
            draw_weights(lstm, "torch", None, generator)
        limit = 1 / math.sqrt(settings.last_hidden_size)
        for parameter in (self.prior.weight, self.latent.weight, self.latent.bias):
            parameter.uniform_(-limit, limit, generator=generator)
