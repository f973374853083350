"""Word-level language models: the stacked LSTM, the stacked GRU and the recurrent highway network.

Weights are drawn from an explicit generator: the same seed gives the same weights, and the global generator
is left alone. Dropout in training mode draws from the global generator, as `nn.LSTM` does; whoever trains
seeds, forks and restores it.

References:
    Zaremba, Sutskever, Vinyals (2014), Recurrent neural network regularization.
    Zilly, Srivastava, Koutník, Schmidhuber (2017), Recurrent highway networks, §5.
    Press, Wolf (2017), Using the output embedding to improve language models (tied weights).

Axes: T time, B batch, V words, E embedding, H hidden, L layers.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from hyperprune.errors import InputError
from hyperprune.models.cells import RHN
from hyperprune.models.dropout import dropout_mask, embed_words, locked_dropout
from hyperprune.models.presets import PRESETS, ModelSettings, preset

__all__ = [
    "PRESETS",
    "LanguageModel",
    "ModelSettings",
    "RHNLanguageModel",
    "StackedGRU",
    "StackedLSTM",
    "build_language_model",
    "detach_state",
    "preset",
]

_Recurrent = TypeVar("_Recurrent", bound=nn.Module)
# (h, c), each (L, B, H), of the LSTM; (L, B, H) of the GRU; (B, H) of the RHN.
State = tuple[Tensor, Tensor] | Tensor


def detach_state(state: Any) -> Any:
    """The same state cut off from the graph that made it: what one window of BPTT hands to the next."""
    if isinstance(state, Tensor):
        return state.detach()
    if state is None:
        return None
    return tuple(detach_state(part) for part in state)


class LanguageModel(nn.Module, ABC, Generic[_Recurrent]):
    """Embedding, a recurrent module called `rnn`, and a linear decoder.

    Parameters: `embedding.weight` (V, E), `rnn.*`, `decoder.weight` (V, H), `decoder.bias` (V). If tied,
    `decoder.weight` is the same Parameter as `embedding.weight`, and `named_parameters` lists it once, under
    the latter name; the state dict has both keys.

    Args:
        settings: sizes, dropout, start values.
        vocabulary_size: V, at least 2.
        generator: source of the initial weights.

    Raises:
        InputError: a vocabulary below two words, or settings of the other kind of model.
    """

    kind: str
    rnn: _Recurrent

    def __init__(self, settings: ModelSettings, vocabulary_size: int, generator: torch.Generator) -> None:
        super().__init__()
        if vocabulary_size < 2:
            raise InputError(
                f"vocabulary_size must be at least 2 words, got {vocabulary_size}; use more text"
            )
        if settings.kind != self.kind:
            raise InputError(
                f"{type(self).__name__} takes settings of kind {self.kind!r}, got {settings.kind!r}; "
                "build_language_model chooses the class"
            )
        self.settings = settings
        # torch.nn draws start values from the global generator; they are all overwritten below.
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(vocabulary_size, settings.embedding_size)
            self.rnn = self._recurrent_module()
            self.decoder = nn.Linear(settings.hidden_size, vocabulary_size)
        if settings.tied:
            self.decoder.weight = self.embedding.weight
        self._reset_parameters(generator)

    @abstractmethod
    def _recurrent_module(self) -> _Recurrent: ...

    @abstractmethod
    def _reset_recurrent(self, generator: torch.Generator, limit: float) -> None: ...

    @abstractmethod
    def forward(self, tokens: Any, state: Any = None) -> tuple[Tensor, Any]: ...

    detach_state = staticmethod(detach_state)

    def recurrent_runs(
        self, tokens: Int64[Tensor, "T B"], state: State | None = None
    ) -> list[tuple[nn.Module, Float[Tensor, "T B E"], State | None]]:
        """What drives each recurrent module when the model reads `tokens` in evaluation mode.

        Returns:
            [(module, inputs (T, B, E), state)], with one entry: each model keeps all its layers in `rnn`.
            The inputs are free of dropout, whatever the mode, and detached.
        """
        with torch.no_grad():
            return [(self.rnn, embed_words(tokens, self.embedding.weight), state)]

    @torch.no_grad()
    def _reset_parameters(self, generator: torch.Generator) -> None:
        settings = self.settings
        self.embedding.weight.uniform_(-settings.init_range, settings.init_range, generator=generator)
        if not settings.tied:
            self.decoder.weight.uniform_(-settings.init_range, settings.init_range, generator=generator)
        self.decoder.bias.zero_()
        limit = settings.recurrent_init_range or 1 / math.sqrt(settings.hidden_size)
        self._reset_recurrent(generator, limit)


@final
class StackedLSTM(LanguageModel[nn.LSTM]):
    """LSTM layers with dropout where information moves upwards, never along time.

    Reference:
        Zaremba et al. 2014, eq. 4-6; the weights' start as in the recipe published with Selfish-RNN
        (embedding and decoder uniform on ±0.1, decoder bias 0, recurrent layers as `nn.LSTM` starts them).
    """

    kind = "lstm"

    def _recurrent_module(self) -> nn.LSTM:
        settings = self.settings
        return nn.LSTM(
            settings.embedding_size,
            settings.hidden_size,
            settings.num_layers,
            dropout=settings.dropout_hidden,
        )

    def _reset_recurrent(self, generator: torch.Generator, limit: float) -> None:
        for parameter in self.rnn.parameters():
            parameter.uniform_(-limit, limit, generator=generator)

    def forward(
        self,
        tokens: Int64[Tensor, "T B"],
        state: tuple[Float[Tensor, "L B H"], Float[Tensor, "L B H"]] | None = None,
    ) -> tuple[Float[Tensor, "T B V"], tuple[Float[Tensor, "L B H"], Float[Tensor, "L B H"]]]:
        """Score the word after each of `tokens` (T, B).

        Args:
            state: (h, c), each (L, B, H); None starts from zero.

        Returns:
            Logits (T, B, V) and the last (h, c).
        """
        settings, training = self.settings, self.training
        embedded = embed_words(tokens, self.embedding.weight, settings.dropout_embedding, training=training)
        outputs, last_state = self.rnn(functional.dropout(embedded, settings.dropout_input, training), state)
        return self.decoder(functional.dropout(outputs, settings.dropout_output, training)), last_state


@final
class StackedGRU(LanguageModel[nn.GRU]):
    """GRU layers with dropout as in the stacked LSTM.

    Reference:
        Cho et al. 2014 in the form of `nn.GRU`; dropout and start as in `StackedLSTM` (ours).
    """

    kind = "gru"

    def _recurrent_module(self) -> nn.GRU:
        settings = self.settings
        return nn.GRU(
            settings.embedding_size,
            settings.hidden_size,
            settings.num_layers,
            dropout=settings.dropout_hidden,
        )

    def _reset_recurrent(self, generator: torch.Generator, limit: float) -> None:
        for parameter in self.rnn.parameters():
            parameter.uniform_(-limit, limit, generator=generator)

    def forward(
        self, tokens: Int64[Tensor, "T B"], state: Float[Tensor, "L B H"] | None = None
    ) -> tuple[Float[Tensor, "T B V"], Float[Tensor, "L B H"]]:
        """Score the word after each of `tokens` (T, B).

        Args:
            state: (L, B, H); None starts from zero.

        Returns:
            Logits (T, B, V) and the last state, (L, B, H).
        """
        settings, training = self.settings, self.training
        embedded = embed_words(tokens, self.embedding.weight, settings.dropout_embedding, training=training)
        outputs, last_state = self.rnn(functional.dropout(embedded, settings.dropout_input, training), state)
        return self.decoder(functional.dropout(outputs, settings.dropout_output, training)), last_state


@final
class RHNLanguageModel(LanguageModel[RHN]):
    """Recurrent highway network with variational dropout on words, input, recurrent state and output.

    Reference:
        Zilly et al. 2017, §5; Gal & Ghahramani 2016. One mask on the recurrent state serves all micro-steps
        of a window. Deviation: one mask of dropped words for the whole batch (see `embed_words`).
    """

    kind = "rhn"

    def _recurrent_module(self) -> RHN:
        settings = self.settings
        return RHN(settings.embedding_size, settings.hidden_size, settings.depth, coupled=settings.coupled)

    def _reset_recurrent(self, generator: torch.Generator, limit: float) -> None:
        self.rnn.reset_parameters(generator, limit)

    def forward(
        self, tokens: Int64[Tensor, "T B"], state: Float[Tensor, "B H"] | None = None
    ) -> tuple[Float[Tensor, "T B V"], Float[Tensor, "B H"]]:
        """Score the word after each of `tokens` (T, B).

        Args:
            state: (B, H); None starts from zero.

        Returns:
            Logits (T, B, V) and the last state, (B, H).
        """
        settings, training = self.settings, self.training
        embedded = embed_words(tokens, self.embedding.weight, settings.dropout_embedding, training=training)
        inputs = locked_dropout(embedded, settings.dropout_input, training=training)
        state_mask = None
        if training and settings.dropout_hidden:
            shape = (tokens.shape[1], settings.hidden_size)
            state_mask = dropout_mask(inputs, shape, settings.dropout_hidden)
        outputs, last_state = self.rnn(inputs, state, state_mask=state_mask)
        return self.decoder(locked_dropout(outputs, settings.dropout_output, training=training)), last_state


_CLASSES: dict[str, type[LanguageModel]] = {
    "lstm": StackedLSTM,
    "gru": StackedGRU,
    "rhn": RHNLanguageModel,
}


def build_language_model(
    settings: ModelSettings, vocabulary_size: int, generator: torch.Generator
) -> LanguageModel:
    """The language model that `settings` describe, on the CPU, with weights drawn from `generator`.

    Raises:
        InputError: a vocabulary below two words.
    """
    return _CLASSES[settings.kind](settings, vocabulary_size, generator)
