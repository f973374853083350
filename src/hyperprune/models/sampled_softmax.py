"""The cross entropy of a large vocabulary from a sample of its words, for training.

Words must be in order of frequency (as `Vocabulary` has them). A sample holds exactly n words, all
different, word k with the probability π_k = min(1, c·ln((k + 2)/(k + 1))), which falls off as Zipf's law
does ("log-uniform"), c such that the π add up to n; it is drawn by equal steps from a random start
(systematic sampling). In the softmax's denominator every sampled word stands for 1/π_k words, which makes
that sum unbiased; the loss and its gradient, where the logarithm is taken, approach the full softmax's as n
grows and equal them at n = V.

References:
    Bengio, Senécal (2008), Adaptive importance sampling to accelerate training of a neural probabilistic
    language model.
    Jean, Cho, Memisevic, Bengio (2015), On using very large target vocabulary for neural machine
    translation, §3.
    Madow (1949), On the theory of systematic sampling, II (fixed size, given inclusion probabilities).
    Horvitz, Thompson (1952), A generalization of sampling without replacement (the weights 1/π).

Axes: N positions, V words, H features, S sampled words.
"""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from hyperprune.errors import InputError


def inclusion_probabilities(vocabulary_size: int, num_sampled: int) -> Float64[Tensor, " V"]:
    """π_k, the probability that a sample of `num_sampled` words holds word k; they add up to `num_sampled`.

    Args:
        vocabulary_size: V.
        num_sampled: n, in 1 … V.

    Raises:
        InputError: `num_sampled` out of range.
    """
    if not 1 <= num_sampled <= vocabulary_size:
        raise InputError(
            f"num_sampled must lie in 1 … {vocabulary_size}, the size of the vocabulary, got {num_sampled}; "
            "leave it out for the full softmax"
        )
    ranks = torch.arange(vocabulary_size, dtype=torch.float64)
    weights = torch.log1p(1 / (ranks + 1))
    # The most frequent words are certain to be in; the others share what room is left, in proportion.
    rest = weights.flip(0).cumsum(0).flip(0)
    fits = (num_sampled - ranks) * weights < rest
    num_certain = int(fits.int().argmax()) if bool(fits.any()) else vocabulary_size
    result = torch.ones_like(weights)
    if num_certain < vocabulary_size:
        result[num_certain:] = weights[num_certain:] * ((num_sampled - num_certain) / rest[num_certain])
    return result


def sample_words(
    inclusion_V: Float64[Tensor, " V"], generator: torch.Generator | None = None
) -> Int64[Tensor, " S"]:
    """A sample of distinct words, word k with the probability given; ascending.

    Args:
        inclusion_V: (V,) probabilities whose sum is the whole number S.
        generator: source of the random start; None is the global one of the CPU.
    """
    sums = inclusion_V.cumsum(0)
    num_sampled = round(float(sums[-1]))
    start = torch.rand((), dtype=torch.float64, generator=generator, device=inclusion_V.device)
    points = start + torch.arange(num_sampled, dtype=torch.float64, device=inclusion_V.device)
    # Word k covers [sums[k-1], sums[k]), an interval no longer than 1: no two points fall into it.
    return torch.searchsorted(sums, points, right=True).clamp_(max=len(sums) - 1)


def sampled_cross_entropy(
    outputs_NH: Float[Tensor, "N H"],
    weight_VH: Float[Tensor, "V H"],
    bias_V: Float[Tensor, " V"],
    targets_N: Int64[Tensor, " N"],
    inclusion_V: Float64[Tensor, " V"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy over positions, its denominators estimated from one sample that all of them share.

    Args:
        outputs_NH: (N, H) what the decoder reads.
        weight_VH, bias_V: (V, H) and (V,), the decoder's.
        targets_N: (N,) word indices.
        inclusion_V: (V,) from `inclusion_probabilities`.
        generator: source of the sample.
    """
    words_S = sample_words(inclusion_V, generator)
    logit_N, log_denominator_N = target_logits_and_denominators(
        outputs_NH, weight_VH, bias_V, targets_N, inclusion_V, words_S
    )
    return (log_denominator_N - logit_N).mean()


def target_logits_and_denominators(
    outputs_NH: Float[Tensor, "N H"],
    weight_VH: Float[Tensor, "V H"],
    bias_V: Float[Tensor, " V"],
    targets_N: Int64[Tensor, " N"],
    inclusion_V: Float64[Tensor, " V"],
    words_S: Int64[Tensor, " S"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Each target's logit, and the logarithm of the denominator's estimate from the sample `words_S`.

    A target always takes part with its own weight of 1; where the sample holds it too, it counts once.
    """
    logit_N = (outputs_NH * weight_VH[targets_N]).sum(1) + bias_V[targets_N]
    logits_NS = torch.addmm(bias_V[words_S], outputs_NH, weight_VH[words_S].t())
    logits_NS = logits_NS - inclusion_V[words_S].log().to(logits_NS.dtype)
    logits_NS = logits_NS.masked_fill(words_S == targets_N.unsqueeze(1), -torch.inf)
    return logit_N, torch.cat([logit_N.unsqueeze(1), logits_NS], dim=1).logsumexp(1)
