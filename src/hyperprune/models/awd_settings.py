"""Settings of the AWD-LSTM with a mixture of softmaxes, and the published sizes.

References:
    Merity, Keskar, Socher (2018), Regularizing and optimizing LSTM language models.
    Yang, Dai, Salakhutdinov, Cohen (2018), Breaking the softmax bottleneck: a high-rank RNN language model,
    appendix B (sizes and rates for PTB and WikiText-2).
"""

from dataclasses import dataclass, fields
from typing import Literal

from hyperprune.errors import InputError
from hyperprune.models.dropout import check_rate


@dataclass(frozen=True, kw_only=True)
class AWDSettings:
    """What an AWD-LSTM-MoS looks like, but for its vocabulary. Embedding and decoder are one matrix.

    Args:
        kind: "awd_lstm_mos".
        embedding_size: width of a word's vector, and of each expert's.
        hidden_size: units of every LSTM layer but the last.
        last_hidden_size: units of the last one.
        num_layers: LSTM layers.
        num_experts: softmaxes that are mixed; 1 is a plain softmax behind one tanh layer.
        weight_drop: rate at which single recurrent (hidden-to-hidden) weights are dropped for a window.
        dropout_embedding: rate at which whole words are dropped.
        dropout_input: rate on the embedded words, fixed over the window, as are all below.
        dropout_hidden: rate between the layers.
        dropout_output: rate on the last layer's output.
        dropout_latent: rate on the experts' vectors.
        activation_penalty: α, the factor of the mean square of the dropped output (AR), in training.
        change_penalty: β, the factor of the mean square of the output's change from step to step (TAR).
        init_range: embedding and decoder start uniformly on ± this.

    Raises:
        InputError: a value out of range.
    """

    kind: Literal["awd_lstm_mos"] = "awd_lstm_mos"
    embedding_size: int
    hidden_size: int
    last_hidden_size: int
    num_layers: int = 3
    num_experts: int = 15
    weight_drop: float = 0.0
    dropout_embedding: float = 0.0
    dropout_input: float = 0.0
    dropout_hidden: float = 0.0
    dropout_output: float = 0.0
    dropout_latent: float = 0.0
    activation_penalty: float = 0.0
    change_penalty: float = 0.0
    init_range: float = 0.1

    def __post_init__(self) -> None:
        for name in ("embedding_size", "hidden_size", "last_hidden_size", "num_layers", "num_experts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}; see 'awd-mos-mini'")
        for setting in fields(self):
            if setting.name.startswith(("dropout_", "weight_drop")):
                check_rate(setting.name, getattr(self, setting.name))
        if self.num_layers == 1 and self.hidden_size != self.last_hidden_size:
            raise InputError(
                f"a single layer has last_hidden_size units, got hidden_size {self.hidden_size} beside "
                f"{self.last_hidden_size}; give both the same"
            )
        if self.num_layers == 1 and self.dropout_hidden:
            raise InputError(
                f"dropout_hidden acts between layers, and there is one, got {self.dropout_hidden}; set it "
                "to 0"
            )
        for name in ("activation_penalty", "change_penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}; 0 turns it off")
        if not 0 < self.init_range < float("inf"):
            raise InputError(
                f"init_range must be positive and finite, got {self.init_range}; 0.1 is a usual choice"
            )

    @property
    def layer_sizes(self) -> list[int]:
        """Units of each LSTM layer, first to last."""
        return [self.hidden_size] * (self.num_layers - 1) + [self.last_hidden_size]


AWD_PRESETS: dict[str, AWDSettings] = {
    "awd-mos-mini": AWDSettings(  # ours
        embedding_size=64,
        hidden_size=128,
        last_hidden_size=96,
        num_experts=3,
        weight_drop=0.2,
        dropout_input=0.2,
        dropout_hidden=0.1,
        dropout_output=0.2,
        dropout_latent=0.1,
        activation_penalty=2.0,
        change_penalty=1.0,
    ),
    "awd-mos-ptb": AWDSettings(
        embedding_size=280,
        hidden_size=960,
        last_hidden_size=620,
        weight_drop=0.5,
        dropout_embedding=0.1,
        dropout_input=0.4,
        dropout_hidden=0.225,
        dropout_output=0.4,
        dropout_latent=0.29,
        activation_penalty=2.0,
        change_penalty=1.0,
    ),
    "awd-mos-wikitext2": AWDSettings(
        embedding_size=300,
        hidden_size=1150,
        last_hidden_size=650,
        weight_drop=0.5,
        dropout_embedding=0.1,
        dropout_input=0.55,
        dropout_hidden=0.2,
        dropout_output=0.4,
        dropout_latent=0.29,
        activation_penalty=2.0,
        change_penalty=1.0,
    ),
}
