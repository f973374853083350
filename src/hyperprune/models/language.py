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

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from hyperprune.errors import InputError
from hyperprune.models.cells import RHN
from hyperprune.models.dropout import dropout_mask, embed_words, locked_dropout
from hyperprune.models.presets import ModelSettings
from hyperprune.models.sampled_softmax import inclusion_probabilities, sampled_cross_entropy
from hyperprune.models.start import draw_weights

_Recurrent = TypeVar("_Recurrent", bound=nn.Module)
_Layers = TypeVar("_Layers", nn.LSTM, nn.GRU)
# (h, c), each (L, B, H), of the LSTM; (L, B, H) of the GRU; (B, H) of the RHN.
State = tuple[Tensor, Tensor] | Tensor


def detach_state(state: Any) -> Any:
    """The same state cut off from the graph that made it: what one window of BPTT hands to the next."""
    if isinstance(state, Tensor):
        return state.detach()
    if state is None:
        return None
    return tuple(detach_state(part) for part in state)


class LanguageModel(nn.Module, ABC):
    """A network that reads words and scores the next one; `embedding.weight` is (V, E).

    Attributes:
        kind: the value of `settings.kind` that stands for the class.
    """

    kind: str
    settings: Any
    embedding: nn.Embedding

    @abstractmethod
    def forward(self, tokens: Any, state: Any = None) -> tuple[Tensor, Any]:
        """Scores (T, B, V) whose softmax is the next word's distribution, and the last state."""

    @abstractmethod
    def loss(self, tokens: Any, targets: Any, state: Any = None) -> tuple[Tensor, Any]:
        """The mean over words of what training minimises, and the last state.

        In evaluation mode it is the cross entropy of the full softmax, in training mode that or its
        estimate, and what the model is regularised by.
        """

    @abstractmethod
    def recurrent_runs(self, tokens: Any, state: Any = None) -> list[tuple[nn.Module, Tensor, Any]]:
        """What drives each recurrent module when the model reads `tokens` in evaluation mode.

        Returns:
            [(module, inputs (T, B, features), state)], first layer first. The inputs are free of dropout,
            whatever the mode, and detached.
        """

    def prunable(self) -> list[str] | None:
        """Names of the matrices that may be pruned; None is every one that is trained."""
        return None

    detach_state = staticmethod(detach_state)


def check_language_model(kind: str, settings: Any, vocabulary_size: int) -> None:
    """Raise InputError for a vocabulary below two words, or settings of another kind of model."""
    if vocabulary_size < 2:
        raise InputError(f"vocabulary_size must be at least 2 words, got {vocabulary_size}; use more text")
    if settings.kind != kind:
        raise InputError(
            f"a model of kind {kind!r} takes settings of that kind, got {settings.kind!r}; "
            "build_language_model chooses the class"
        )


class SoftmaxLanguageModel(LanguageModel, Generic[_Recurrent]):
    """Embedding, a recurrent module called `rnn`, and a linear decoder.

    Parameters: `embedding.weight` (V, E), `rnn.*`, `decoder.weight` (V, H), `decoder.bias` (V). If tied,
    `decoder.weight` is the same Parameter as `embedding.weight`, and `named_parameters` lists it once, under
    the latter name; the state dict has both keys.

    Args:
        settings: sizes, dropout, start values.
        vocabulary_size: V, at least 2. Where the softmax is sampled, words are in order of frequency.
        generator: source of the initial weights.

    Raises:
        InputError: a vocabulary below two words or below the sample, or settings of the other kind of model.
    """

    rnn: _Recurrent
    inclusion_V: Tensor | None

    def __init__(self, settings: ModelSettings, vocabulary_size: int, generator: torch.Generator) -> None:
        super().__init__()
        check_language_model(self.kind, settings, vocabulary_size)
        self.settings: ModelSettings = settings
        # torch.nn draws start values from the global generator; they are all overwritten below.
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(vocabulary_size, settings.embedding_size)
            self.rnn = self._recurrent_module()
            self.decoder = nn.Linear(settings.hidden_size, vocabulary_size)
        if settings.tied:
            self.decoder.weight = self.embedding.weight
        self.embedding.weight.requires_grad_(not settings.frozen_embedding)
        sampled = settings.num_sampled
        inclusion_V = None if sampled is None else inclusion_probabilities(vocabulary_size, sampled)
        self.register_buffer("inclusion_V", inclusion_V, persistent=False)
        self._reset_parameters(generator)

    @abstractmethod
    def _recurrent_module(self) -> _Recurrent: ...

    @abstractmethod
    def _outputs(self, tokens: Any, state: Any) -> tuple[Tensor, Any]:
        """What the decoder reads, (T, B, H), and the last state."""

    def forward(self, tokens: Int64[Tensor, "T B"], state: State | None = None) -> tuple[Tensor, State]:
        """Score the word after each of `tokens` (T, B).

        Args:
            state: of the LSTM (h, c), each (L, B, H), of the GRU (L, B, H), of the RHN (B, H);
                None starts from zero.

        Returns:
            Logits (T, B, V) and the last state.
        """
        outputs, last_state = self._outputs(tokens, state)
        return self.decoder(outputs), last_state

    def loss(
        self, tokens: Int64[Tensor, "T B"], targets: Int64[Tensor, "T B"], state: State | None = None
    ) -> tuple[Float[Tensor, ""], State]:
        """Mean cross entropy per word and the last state; in training, sampled if the settings say so."""
        outputs, last_state = self._outputs(tokens, state)
        outputs_NH, targets_N = outputs.flatten(0, 1), targets.flatten()
        if self.training and self.inclusion_V is not None:
            decoder = self.decoder
            loss = sampled_cross_entropy(
                outputs_NH, decoder.weight, decoder.bias, targets_N, self.inclusion_V
            )
        else:
            loss = functional.cross_entropy(self.decoder(outputs_NH), targets_N)
        return loss, last_state

    def recurrent_runs(
        self, tokens: Int64[Tensor, "T B"], state: State | None = None
    ) -> list[tuple[nn.Module, Float[Tensor, "T B E"], State | None]]:
        """One entry: these models keep all their layers in `rnn`."""
        with torch.no_grad():
            return [(self.rnn, embed_words(tokens, self.embedding.weight), state)]

    def prunable(self) -> list[str] | None:
        if self.settings.pruned == "all":
            return None
        return [f"rnn.{name}" for name, weight in self.rnn.named_parameters() if weight.ndim >= 2]

    @torch.no_grad()
    def _reset_parameters(self, generator: torch.Generator) -> None:
        settings = self.settings
        if settings.frozen_embedding:
            self.embedding.weight.normal_(generator=generator)
        else:
            self.embedding.weight.uniform_(-settings.init_range, settings.init_range, generator=generator)
        if not settings.tied:
            self.decoder.weight.uniform_(-settings.init_range, settings.init_range, generator=generator)
        self.decoder.bias.zero_()
        draw_weights(self.rnn, settings.recurrent_init, settings.recurrent_init_range, generator)


class StackedLanguageModel(SoftmaxLanguageModel[_Layers]):
    """Recurrent layers of `torch.nn` with dropout where information moves upwards, never along time.

    Reference:
        Zaremba et al. 2014, eq. 4-6; the weights' start as in the recipe published with Selfish-RNN
        (embedding and decoder uniform on ±0.1, decoder bias 0, recurrent layers as `torch.nn` starts them).
    """

    layers: type[_Layers]

    def _recurrent_module(self) -> _Layers:
        settings = self.settings
        return self.layers(
            settings.embedding_size,
            settings.hidden_size,
            settings.num_layers,
            dropout=settings.dropout_hidden,
        )

    def _outputs(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        settings, training = self.settings, self.training
        embedded = embed_words(tokens, self.embedding.weight, settings.dropout_embedding, training=training)
        outputs, last_state = self.rnn(functional.dropout(embedded, settings.dropout_input, training), state)
        return functional.dropout(outputs, settings.dropout_output, training), last_state


@final
class StackedLSTM(StackedLanguageModel[nn.LSTM]):
    """The language model of Zaremba et al. 2014."""

    kind = "lstm"
    layers = nn.LSTM


@final
class StackedGRU(StackedLanguageModel[nn.GRU]):
    """The same with GRU layers (Cho et al. 2014, in the form of `nn.GRU`); ours."""

    kind = "gru"
    layers = nn.GRU


@final
class RHNLanguageModel(SoftmaxLanguageModel[RHN]):
    """Recurrent highway network with variational dropout on words, input, recurrent state and output.

    Reference:
        Zilly et al. 2017, §5; Gal & Ghahramani 2016. One mask on the recurrent state serves all micro-steps
        of a window. Deviation: one mask of dropped words for the whole batch (see `embed_words`).
    """

    kind = "rhn"

    def _recurrent_module(self) -> RHN:
        settings = self.settings
        return RHN(settings.embedding_size, settings.hidden_size, settings.depth, coupled=settings.coupled)

    def _outputs(self, tokens: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        settings, training = self.settings, self.training
        embedded = embed_words(tokens, self.embedding.weight, settings.dropout_embedding, training=training)
        inputs = locked_dropout(embedded, settings.dropout_input, training=training)
        state_mask = None
        if training and settings.dropout_hidden:
            shape = (tokens.shape[1], settings.hidden_size)
            state_mask = dropout_mask(inputs, shape, settings.dropout_hidden)
        outputs, last_state = self.rnn(inputs, state, state_mask=state_mask)
        return locked_dropout(outputs, settings.dropout_output, training=training), last_state
