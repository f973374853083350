"""The iteration driven by hand: pieces, checkpoints, intervals, threads."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from hyperprune.errors import InputError
from hyperprune.lyapunov import LyapunovIteration, lyapunov_spectrum
from hyperprune.lyapunov.frames import Chain
from hyperprune.lyapunov.settings import as_tensors_name_it


def network(hidden: int = 30, layers: int = 2) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(4, hidden, layers).requires_grad_(False)


def drive(steps: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(steps, batch, 4, generator=torch.Generator().manual_seed(1))


def assert_same_bits(one, other):
    for ours, theirs in zip(one.log_growth, other.log_growth, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(one.block_steps, other.block_steps)
    assert one.logdet_residual == other.logdet_residual
    assert one.warmup == other.warmup


def through_checkpoints(module: nn.Module, inputs: torch.Tensor) -> LyapunovIteration:
    """Advanced over all inputs, by a new iteration at every step that goes on from the last one's state."""
    iteration = LyapunovIteration(module, batch_size=inputs.shape[1])
    for inputs_of_step in inputs.split(1):
        saved = iteration.advance(inputs_of_step).state_dict()
        iteration = LyapunovIteration(module, batch_size=inputs.shape[1])
        iteration.load_state_dict(saved)
    return iteration


@pytest.mark.parametrize("hidden", [9, 30])  # one batch of small states; a chain for each sample
@pytest.mark.parametrize("qr_interval", [1, 3])
def test_pieces_equal_the_whole_bit_for_bit(hidden, qr_interval):
    inputs = drive(31)

    def start():
        return LyapunovIteration(
            network(hidden), batch_size=2, qr_interval=qr_interval, dtype=torch.float64, jacobian="hidden"
        )

    whole = start().warm_up(inputs[:5]).advance(inputs[5:]).spectrum()
    pieces = start().warm_up(inputs[:2]).warm_up(inputs[2:5])
    for begin, end in [(5, 6), (6, 10), (10, 29), (29, 31)]:
        pieces.advance(inputs[begin:end])
        pieces.spectrum()  # asking in between changes nothing
    assert_same_bits(pieces.spectrum(), whole)


@pytest.mark.parametrize("qr_interval", [1, 4])
def test_a_run_goes_on_from_a_checkpoint_on_disk_bit_for_bit(qr_interval):
    inputs = drive(30)

    def start():
        return LyapunovIteration(
            network(), batch_size=2, qr_interval=qr_interval, dtype=torch.float64, jacobian="hidden"
        )

    first = start().warm_up(inputs[:4]).advance(inputs[4:18])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    whole = first.advance(inputs[18:]).spectrum()
    file.seek(0)
    second = start()
    second.load_state_dict(torch.load(file, weights_only=True))
    assert_same_bits(second.advance(inputs[18:]).spectrum(), whole)


def test_pieces_equal_the_whole_where_frames_have_to_be_made_again():
    module, inputs = network(60, 1), drive(40)
    generator = torch.Generator().manual_seed(3)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        weight = module.get_parameter(name)
        weight.mul_(torch.rand(weight.shape, generator=generator) < 0.1).mul_(3)
    whole = LyapunovIteration(module, batch_size=2).advance(inputs)
    back_offs = [chain["back_off"] for chain in whole.state_dict()["chains"][0]]
    assert back_offs != [(0, 1)] * 2  # else this network does not try what the test is for
    assert_same_bits(through_checkpoints(module, inputs).spectrum(), whole.spectrum())


def test_a_checkpoint_remembers_which_directions_were_lost():
    torch.manual_seed(0)
    module = nn.RNN(4, 60).double().requires_grad_(False)
    for parameter in module.parameters():
        parameter.mul_(5)
    module.get_parameter("weight_hh_l0")[:, :5] = 0
    inputs = 5 * drive(45, batch=6).double()
    whole = LyapunovIteration(module, batch_size=6).advance(inputs)
    assert_same_bits(through_checkpoints(module, inputs).spectrum(), whole.spectrum())


def test_a_checkpoint_is_not_changed_by_going_on():
    inputs = drive(12)
    iteration = LyapunovIteration(network(), batch_size=2).advance(inputs[:6])
    saved = iteration.state_dict()
    frame = saved["chains"][0][0]["frame"].clone()
    iteration.advance(inputs[6:])
    torch.testing.assert_close(saved["chains"][0][0]["frame"], frame, rtol=0, atol=0)


def test_a_checkpoint_of_other_settings_is_refused():
    saved = LyapunovIteration(network(), batch_size=2, jacobian="hidden").state_dict()
    other = LyapunovIteration(network(), batch_size=2, num_exponents=3)
    with pytest.raises(InputError, match="jacobian, num_exponents, state_sizes differ"):
        other.load_state_dict(saved)


def test_a_checkpoint_of_other_groups_of_samples_is_refused():
    saved = LyapunovIteration(network(), batch_size=2, batched=True).advance(drive(3)).state_dict()
    other = LyapunovIteration(network(), batch_size=2, batched=False)
    with pytest.raises(InputError, match="settings, batched differ; make the iteration with the saved"):
        other.load_state_dict(saved)


def test_a_device_may_be_named_with_or_without_its_number():
    assert as_tensors_name_it("cpu:0") == torch.zeros(1).device
    iteration = LyapunovIteration(network(), batch_size=2, device="cpu:0").advance(drive(3))
    assert_same_bits(iteration.spectrum(), lyapunov_spectrum(network(), drive(3)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card")
def test_a_graphics_card_may_be_named_with_or_without_its_number():
    spectra = [
        LyapunovIteration(network().to(name), batch_size=2, device=name).advance(drive(3).to(name)).spectrum()
        for name in ("cuda", "cuda:0")
    ]
    assert_same_bits(*spectra)


def test_long_runs_keep_a_bounded_number_of_blocks():
    inputs = drive(1000, batch=1)
    iteration = LyapunovIteration(network(5, 1), batch_size=1, dtype=torch.float64)
    whole = iteration.advance(inputs).spectrum()
    assert len(whole.block_steps) <= 128
    assert whole.num_steps == 1000
    halves = LyapunovIteration(network(5, 1), batch_size=1, dtype=torch.float64)
    assert_same_bits(halves.advance(inputs[:333]).advance(inputs[333:]).spectrum(), whole)


def test_warm_up_moves_the_state_and_is_not_counted():
    inputs = drive(20)
    spectrum = lyapunov_spectrum(network(), inputs, warmup=8)
    assert (spectrum.num_steps, spectrum.warmup) == (12, 8)
    iteration = LyapunovIteration(network(), batch_size=2)
    iteration.warm_up(inputs[:8])
    _, (h, c) = network()(inputs[:8])
    for layer, (own_h, own_c) in enumerate(iteration.state):
        # float32 sums of thirty terms in another order
        torch.testing.assert_close(own_h, h[layer], rtol=0, atol=1e-6)
        torch.testing.assert_close(own_c, c[layer], rtol=0, atol=1e-6)


def test_warm_up_after_measuring_is_refused():
    iteration = LyapunovIteration(network(), batch_size=2).advance(drive(3))
    with pytest.raises(InputError, match="warm-up must precede the measured steps, 3 are measured"):
        iteration.warm_up(drive(2))


def test_a_spectrum_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least one measured step, got 0"):
        LyapunovIteration(network(), batch_size=2).spectrum()


def test_longer_intervals_agree_where_the_precision_allows_them():
    inputs, settings = drive(30), {"dtype": torch.float64, "jacobian": "hidden"}
    each = lyapunov_spectrum(network(), inputs, **settings)
    third = lyapunov_spectrum(network(), inputs, qr_interval=3, **settings)
    assert third.qr_interval == 3
    assert third.block_steps.tolist() == [3] * 10
    # eps times the spread of |r| over three steps, which the guard holds below 5e11; here some 1e6.
    np.testing.assert_allclose(third.exponents, each.exponents, rtol=0, atol=1e-8)


@pytest.mark.parametrize("warmup", [0, 10])
def test_an_interval_is_one_factorisation_after_a_warm_up_too(monkeypatch, warmup):
    num_factors, factorise = [], Chain._factorise

    def counted(self, parts, transposed):
        num_factors.append(len(parts))
        return factorise(self, parts, transposed)

    monkeypatch.setattr(Chain, "_factorise", counted)
    settings = {"dtype": torch.float64, "jacobian": "hidden", "qr_interval": 4}
    lyapunov_spectrum(network(layers=1), drive(warmup + 35, batch=1), warmup=warmup, **settings)
    assert num_factors == [1] * warmup + [4] * 8 + [3]


def test_an_interval_that_spreads_too_far_is_shortened_with_both_numbers():
    inputs = drive(40)
    each = lyapunov_spectrum(network(), inputs, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"within a factor of 839, 10 Jacobians spread them by \S+;"):
        spectrum = lyapunov_spectrum(network(), inputs, qr_interval=10)
    assert "went on with as few as 1" in spectrum.notes[0]
    assert spectrum.block_steps.tolist() == [10] * 4
    # What the interval of 10 would lose is nats; float32 with one step each loses 1e-2 at the very end.
    np.testing.assert_allclose(spectrum.exponents, each.exponents, rtol=0, atol=0.05)


def test_a_shortened_interval_at_the_end_is_told_of_and_not_kept():
    iteration = LyapunovIteration(network(layers=1), batch_size=2, qr_interval=50).advance(drive(20))
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"20 Jacobians spread them by \S+; went on with as few as 1"
        ) as told:
            spectrum = iteration.spectrum()
        assert spectrum.notes == (str(told[0].message),)
    assert iteration.state_dict()["notes"] == []


def test_whole_numbers_of_numpy_are_saved_as_pythons(tmp_path):
    """In a process of its own: the tests' type checks let no number of numpy's come so far."""
    code = (
        "import numpy as np, torch, hyperprune as hp\n"
        "two = np.int64(2)\n"
        "settings = {'num_exponents': two, 'qr_interval': two}\n"
        "spectrum = hp.lyapunov_spectrum(torch.nn.GRU(4, 3), torch.zeros(6, 2, 4), **settings)\n"
        f"saved = type(spectrum).load(spectrum.save({str(tmp_path / 'spectrum.npz')!r}))\n"
        "assert (saved.num_exponents, saved.qr_interval, saved.num_steps) == (2, 2, 6)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_leading_exponents_need_no_guard():
    inputs = drive(40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = lyapunov_spectrum(network(), inputs, warmup=10, num_exponents=2, qr_interval=5)
    each = lyapunov_spectrum(network(), inputs, warmup=10, num_exponents=2)
    np.testing.assert_allclose(few.exponents, each.exponents, rtol=0, atol=1e-5)  # float32


def test_the_number_of_threads_changes_no_bit_and_is_restored():
    inputs = drive(12, batch=3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = lyapunov_spectrum(network(), inputs)
        torch.set_num_threads(3)
        three = lyapunov_spectrum(network(), inputs)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert_same_bits(three, one)


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ArithmeticError, match="inputs must be finite"):
            lyapunov_spectrum(network(), torch.full((3, 2, 4), torch.nan))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_neither_module_nor_random_state_is_touched():
    module, inputs = network(), drive(6)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    first = lyapunov_spectrum(module, inputs)
    torch.testing.assert_close(dict(module.state_dict()), weights, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_bits(lyapunov_spectrum(module, inputs), first)


def test_a_generator_chooses_the_frame():
    inputs = drive(6)
    spectra = [
        lyapunov_spectrum(network(), inputs, generator=torch.Generator().manual_seed(seed)).exponents
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(spectra[0], spectra[1])
    assert np.abs(spectra[0] - spectra[2]).max() > 1e-3


def test_a_random_frame_leaves_invariant_subspaces():
    module = nn.RNN(1, 2, bias=False).double().requires_grad_(False)
    module.get_parameter("weight_hh_l0").copy_(torch.diag(torch.tensor([0.1, 0.9], dtype=torch.float64)))
    inputs = torch.zeros(40, 1, 1, dtype=torch.float64)
    largest = lyapunov_spectrum(module, inputs, warmup=39, num_exponents=1).largest
    assert largest == pytest.approx(np.log(0.9), abs=1e-12)  # 9^-39 of the other direction is left
