"""Settings of the stacked LSTM and RHN language models, and the sizes that have a name.

References:
    Zaremba, Sutskever, Vinyals (2014), Recurrent neural network regularization: sizes 200, 650, 1500.
    Liu et al. (2021), Selfish sparse RNN training: the recipes of `large` and `rhn-large`.
    Zilly et al. (2017), Recurrent highway networks: the network of `rhn-large`.
    JSE, section 6.2: the network of `jse` (one LSTM layer of 2000, He start, frozen embedding; its width of
    400 follows from the 19.2 M recurrent weights of table 4).
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

from hyperprune.errors import InputError, unknown_name
from hyperprune.models.awd_settings import AWD_PRESETS, AWDSettings
from hyperprune.models.dropout import check_rate
from hyperprune.models.start import Scheme, check_start

KINDS = ("lstm", "gru", "rhn")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a language model looks like, but for its vocabulary.

    Args:
        kind: "lstm" or "gru" (stacked), or "rhn" (recurrent highway network).
        embedding_size: width of a word's vector.
        hidden_size: units of a recurrent layer.
        num_layers: LSTM or GRU layers; an RHN has one and is made deeper by `depth`.
        depth: the RHN's micro-steps for each word; 1 for the others.
        coupled: the RHN's carry gate is one minus its transform gate; True for the others.
        tied: embedding and decoder are one matrix; needs embedding_size = hidden_size.
        dropout_embedding: rate at which whole words are dropped.
        dropout_input: rate on the embedded words; an RHN's mask is fixed over the window.
        dropout_hidden: rate between stacked layers (so it needs two), or on an RHN's recurrent state,
            fixed over the window.
        dropout_output: rate on what the decoder reads; an RHN's mask is fixed over the window.
        init_range: embedding and decoder start uniformly on ± this.
        recurrent_init: how the recurrent layers start, see `hyperprune.models.start`.
        recurrent_init_range: of "torch", the weights start uniformly on ± this (None: 1/√hidden_size); of
            "normal" their standard deviation and of "uniform" their end (None: 0.1).
        frozen_embedding: the embedding keeps its start, which then is N(0, 1) as `nn.Embedding` has it, and
            is not pruned; not with a tied one.
        num_sampled: negatives of the sampled softmax in training; None computes the full one. Evaluation
            always does.
        pruned: which matrices may be pruned: "all", or the "recurrent" layers' alone.

    Raises:
        InputError: a value out of range, or one that this kind of model would ignore.
    """

    kind: Literal["lstm", "gru", "rhn"]
    embedding_size: int
    hidden_size: int
    num_layers: int = 1
    depth: int = 1
    coupled: bool = True
    tied: bool = False
    dropout_embedding: float = 0.0
    dropout_input: float = 0.0
    dropout_hidden: float = 0.0
    dropout_output: float = 0.0
    init_range: float = 0.1
    recurrent_init: Scheme = "torch"
    recurrent_init_range: float | None = None
    frozen_embedding: bool = False
    num_sampled: int | None = None
    pruned: Literal["all", "recurrent"] = "all"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of language model", self.kind, KINDS)
        for name in ("embedding_size", "hidden_size", "num_layers", "depth"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(
                    f"{name} must be at least 1, got {value}; the preset 'mini' has 2 layers of 128"
                )
        for setting in fields(self):
            if setting.name.startswith("dropout_"):
                check_rate(setting.name, getattr(self, setting.name))
        if not 0 < self.init_range < float("inf"):
            raise InputError(
                f"init_range must be positive and finite, got {self.init_range}; 0.1 is a usual choice"
            )
        check_start(self.recurrent_init, self.recurrent_init_range, name="recurrent_init_range")
        if self.num_sampled is not None and self.num_sampled < 1:
            raise InputError(
                f"num_sampled must be at least 1, got {self.num_sampled}; 1000 is the JSE paper's"
            )
        if self.pruned not in ("all", "recurrent"):
            raise unknown_name("choice of pruned matrices", self.pruned, ("all", "recurrent"))
        if self.tied and self.frozen_embedding:
            raise InputError(
                "a frozen embedding must not be tied, or the decoder would not learn; untie or thaw it"
            )
        if self.tied and self.embedding_size != self.hidden_size:
            raise InputError(
                "a tied embedding must be as wide as the hidden state, got embedding_size "
                f"{self.embedding_size} and hidden_size {self.hidden_size}; make them equal or untie them"
            )
        self._refuse_ignored_settings()

    def _refuse_ignored_settings(self) -> None:
        if self.kind == "rhn" and self.num_layers != 1:
            raise InputError(f"an RHN has one layer, got num_layers = {self.num_layers}; set depth instead")
        stacked = {"lstm": "an LSTM", "gru": "a GRU"}.get(self.kind)
        if stacked and self.depth != 1:
            raise InputError(f"depth must be 1 for {stacked}, got {self.depth}; set num_layers instead")
        if stacked and not self.coupled:
            raise InputError(f"coupled must be true for {stacked}, got false; only an RHN has coupled gates")
        if stacked and self.num_layers == 1 and self.dropout_hidden:
            raise InputError(
                f"dropout_hidden acts between the layers of {stacked} and must be 0 with one layer, "
                f"got {self.dropout_hidden}; set it to 0 or use two layers"
            )


def _lstm(size: int, dropout: float) -> ModelSettings:
    return ModelSettings(
        kind="lstm",
        embedding_size=size,
        hidden_size=size,
        num_layers=2,
        dropout_input=dropout,
        dropout_hidden=dropout,
        dropout_output=dropout,
    )


LanguageSettings = ModelSettings | AWDSettings
PRESETS: dict[str, LanguageSettings] = {
    "mini": _lstm(128, 0.2),  # ours
    "gru-mini": replace(_lstm(128, 0.2), kind="gru"),  # ours
    "small": _lstm(200, 0.2),  # the published one has no dropout; ours trains for longer than its 13 epochs
    "medium": _lstm(650, 0.5),
    "large": _lstm(1500, 0.65),
    "rhn-mini": ModelSettings(  # ours
        kind="rhn",
        embedding_size=128,
        hidden_size=128,
        depth=3,
        tied=True,
        dropout_input=0.2,
        dropout_hidden=0.1,
        dropout_output=0.2,
    ),
    "rhn-large": ModelSettings(
        kind="rhn",
        embedding_size=830,
        hidden_size=830,
        depth=10,
        tied=True,
        dropout_embedding=0.2,
        dropout_input=0.65,
        dropout_hidden=0.25,
        dropout_output=0.65,
        init_range=0.04,
        recurrent_init_range=0.04,
    ),
    "jse": ModelSettings(
        kind="lstm",
        embedding_size=400,
        hidden_size=2000,
        recurrent_init="he",
        frozen_embedding=True,
        pruned="recurrent",
    ),
    **AWD_PRESETS,
}


def preset(name: str) -> LanguageSettings:
    """The settings called `name`; change single ones with `dataclasses.replace`.

    Raises:
        InputError: an unknown name.
    """
    if name not in PRESETS:
        raise unknown_name("model preset", name, PRESETS)
    return PRESETS[name]
