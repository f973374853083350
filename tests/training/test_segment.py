"""One candidate, epoch by epoch: what is measured when, and that nothing else is touched."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

import hyperprune as hp
from hyperprune.at_init.runs import evaluation
from hyperprune.errors import InputError
from hyperprune.records import EpochRecord
from hyperprune.rng import generator
from hyperprune.training.candidate import Training, epoch_of_best
from hyperprune.training.checkpoint import DamagedCheckpointError, load_checkpoint, save_checkpoint
from hyperprune.training.isolation import begin_dropout_anew, isolated, random_state, restore_random_state
from hyperprune.training.nested import detached, map_tensors, to_device
from hyperprune.training.segment import advance, model_after
from tiny_task import TinyTask


def _training(**changes):
    settings = {
        "method": hp.DynamicSparse(death="magnitude", death_rate=0.5),
        "sparsity": 0.5,
        "total_epochs": 6,
        "seed": 0,
        "name": "candidate",
    }
    return Training(**{**settings, **changes})


def _model_at(folder, epoch):
    return load_checkpoint(folder / f"epoch-{epoch:05d}.pt")["model"]


def _seen(record):
    """All that a record holds besides wall times, as it is saved."""
    saved = record.to_json()
    assert EpochRecord.from_json(json.loads(json.dumps(saved))).to_json() == saved
    return {name: value for name, value in saved.items() if "seconds" not in name}


def test_one_go_and_many_small_steps_leave_the_same_bytes(tmp_path):
    task = TinyTask()
    task.recipe = hp.Recipe(optimizer="snt_asgd", learning_rate=4.0, patience=1)  # overshoots, so it averages
    whole = advance(task, _training(), tmp_path / "whole", 5)
    for epoch in range(5):
        advance(task, _training(), tmp_path / "pieces", epoch)
    pieces = advance(task, _training(), tmp_path / "pieces", 5)
    assert [_seen(record) for record in pieces.epochs] == [_seen(record) for record in whole.epochs]
    one, other = _model_at(tmp_path / "whole", 5), _model_at(tmp_path / "pieces", 5)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.epochs[-1].averaging  # so the averages were resumed too


def test_the_model_after_an_epoch_has_the_averaged_weights(tmp_path):
    task = TinyTask()
    task.recipe = hp.Recipe(optimizer="snt_asgd", learning_rate=4.0, patience=1)
    training = _training(method=hp.methods.dense(), sparsity=0.0)
    last = advance(task, training, tmp_path, 5).epochs[-1]
    assert last.averaging
    model = model_after(task, training, tmp_path, 5)
    assert task.evaluate(model, task.batches("valid", 0)).loss == last.valid_loss
    raw = _model_at(tmp_path, 5)
    assert any(not torch.equal(raw[name], value) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="must hold a whole checkpoint of epoch 2"):
        model_after(task, training, tmp_path, 2)


def test_all_candidates_start_from_the_same_dense_weights_where_they_are_live(tmp_path):
    task = TinyTask()
    task.recipe = hp.Recipe(optimizer="sgd", learning_rate=0.1, rescale_weights=False)
    dense = task.model(generator(0, "weights")).state_dict()
    for name in ("one", "other"):
        advance(task, _training(name=name), tmp_path / name, 0)
    one, other = _model_at(tmp_path / "one", 0), _model_at(tmp_path / "other", 0)
    for weights in (one, other):
        for name, weight in weights.items():
            live = weight != 0
            assert torch.equal(weight[live], dense[name][live])
    assert any((one[name] != 0).ne(other[name] != 0).any() for name in one)  # but the topology is their own


def test_the_global_generator_and_the_thread_count_are_left_as_they_were(tmp_path):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    advance(TinyTask(), _training(threads=1), tmp_path, 1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


def test_generators_of_gpus_that_are_not_used_are_not_seeded(monkeypatch):
    def refuse(*_):
        raise AssertionError("a GPU's generator was seeded")

    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    with isolated(device="cpu", threads=1, seed=0):
        one = torch.rand(3)
    with isolated(device="cpu", threads=1, seed=0):
        assert torch.equal(torch.rand(3), one)
    with evaluation(torch.nn.Linear(2, 2), 7):
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(7)))


@pytest.fixture
def gpu(monkeypatch):
    """A GPU's generator: its state, and the states that were set, each of which empties cuDNN's buffer."""

    class Gpu:
        state, was_set = torch.tensor([1]), []

    def put(state, _):
        Gpu.was_set.append(int(state))
        Gpu.state = state

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _: Gpu.state.clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", put)
    return Gpu


def test_dropout_that_begins_anew_on_a_gpu_leaves_its_generator_as_it_is(gpu):
    begin_dropout_anew(torch.device("cpu"))
    assert gpu.was_set == []
    begin_dropout_anew(torch.device("cuda"))
    assert gpu.was_set == [1]


def test_a_gpus_generator_is_put_back_only_where_it_was_drawn_from(gpu):
    device = torch.device("cuda")
    before = random_state(device)
    restore_random_state(before, device)
    assert gpu.was_set == []
    gpu.state = torch.tensor([2])
    restore_random_state(before, device)
    assert gpu.was_set == [1]


def test_dropout_begins_anew_with_every_training_epoch_before_its_first_batch(tmp_path, monkeypatch):
    seen = []

    class Watched(TinyTask):
        def batches(self, split, epoch):
            seen.append(split)
            return super().batches(split, epoch)

    monkeypatch.setattr("hyperprune.training.candidate.begin_dropout_anew", seen.append)
    advance(Watched(), _training(), tmp_path, 2)
    anew = [index for index, what in enumerate(seen) if what == torch.device("cpu")]
    assert [seen[index + 1] for index in anew] == ["train", "train"]


def test_what_a_probe_draws_changes_nothing(tmp_path):
    def draw(_):
        torch.rand(3)

    advance(TinyTask(), _training(), tmp_path / "plain", 2)
    advance(TinyTask(), _training(), tmp_path / "probed", 2, probe=draw)
    one, other = _model_at(tmp_path / "plain", 2), _model_at(tmp_path / "probed", 2)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_spectrum_belongs_to_the_evaluated_weights_before_the_topology_update(tmp_path):
    # Spectrum of the saved best weights, which are those that the last epoch evaluated.
    task = TinyTask()
    result = advance(task, _training(), tmp_path, 3)
    best = hp.load_model(tmp_path / "best.pt", task)
    run = task.recurrent(best, task.spectrum_batch())[0]
    spectrum = hp.lyapunov_spectrum(
        run.module,
        run.inputs,
        jacobian="hidden",
        warmup=task.spectrum_warmup,
        generator=generator(0, "spectrum"),
    )
    # Equal to the last bit: the same computation on the same weights.
    assert result.best_epoch is not None
    recorded = result.epochs[result.best_epoch].spectrum
    assert recorded is not None
    assert spectrum.concatenated.tolist() == recorded.tolist()


def test_dead_weights_are_zero_and_counts_are_exact_after_every_epoch(tmp_path):
    result = advance(TinyTask(), _training(sparsity=0.6), tmp_path, 4)
    shapes = {"rnn.weight_ih_l0": 64, "rnn.weight_hh_l0": 256, "output.weight": 16}
    for record in result.epochs:
        live = {name: round(density * shapes[name]) for name, density in record.density.items()}
        assert sum(live.values()) == round(0.4 * sum(shapes.values()))


def test_records_tell_how_the_live_weights_moved(tmp_path):
    method = hp.DynamicSparse(death_rate=0.5, decay="constant", update_every=2)
    result = advance(TinyTask(), _training(method=method, sparsity=0.75), tmp_path, 3)  # four steps an epoch
    topologies = [record.topology for record in result.epochs if record.topology is not None]
    assert [topology.num_updates for topology in topologies] == [0, 2, 4, 6]
    assert topologies[0].turnover == 0
    assert topologies[0].explored == 0.25
    for before, after, record in zip(topologies, topologies[1:], result.epochs[1:], strict=False):
        assert after.turnover - before.turnover == pytest.approx(2 * 0.5, abs=0.02)  # half of them, rounded
        assert before.explored < after.explored <= 1
        for name, gates in after.gate_density.items():
            assert len(gates) == 4
            assert sum(gates) / 4 == pytest.approx(record.density[name])
    assert topologies[-1].gate_density.keys() == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}


def test_a_dense_model_has_no_topology_and_records_come_back_as_they_were(tmp_path):
    dense = advance(TinyTask(), _training(method=hp.methods.dense(), sparsity=0.0), tmp_path / "dense", 1)
    assert [record.topology for record in dense.epochs] == [None, None]
    pruned = advance(TinyTask(), _training(), tmp_path / "pruned", 1)
    for record in (*dense.epochs, *pruned.epochs):
        back = EpochRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert back.topology == record.topology
        assert back.to_json() == record.to_json()


def test_a_loss_that_is_not_finite_stops_the_candidate_with_the_reason(tmp_path):
    task = TinyTask()
    task.recipe = hp.Recipe(optimizer="sgd", learning_rate=1e30)
    result = advance(task, _training(), tmp_path, 4)
    assert result.failure is not None
    assert "loss became" in result.failure
    assert len(result.epochs) < 4
    again = advance(task, _training(), tmp_path, 4)
    assert again.failure == result.failure


def test_a_gradient_that_is_not_finite_fails_the_candidate_and_not_the_search(tmp_path):
    class Steep(TinyTask):
        def loss(self, model, batch, state):
            outcome = super().loss(model, batch, state)
            flat = (
                0 * model.get_parameter("rnn.weight_hh_l0").sum()
            ).sqrt()  # 0, with a gradient that is not a number
            return hp.BatchLoss(outcome.loss + flat, outcome.num_items, outcome.state)

    result = advance(Steep(), _training(method=hp.methods.rigl(update_every=1)), tmp_path, 2)
    assert result.failure is not None
    assert "training failed in epoch 1: the gradient of rnn.weight_hh_l0 must be finite" in result.failure
    assert [record.epoch for record in result.epochs] == [0]


def test_a_method_whose_update_is_refused_fails_the_candidate_with_what_it_reached(tmp_path, monkeypatch):
    def refuse(self):
        raise InputError("the update must be possible, it is not; take another method")

    monkeypatch.setattr(hp.SparseTraining, "end_epoch", refuse)
    result = advance(TinyTask(), _training(), tmp_path, 4)
    assert str(result.failure).startswith("the topology update after epoch 1 failed: the update must be")
    assert len(result.epochs) == 2
    assert advance(TinyTask(), _training(), tmp_path, 4).failure == result.failure


def test_a_rewinding_that_comes_too_late_is_refused_before_training(tmp_path):
    method = hp.methods.lottery_ticket(rewind_step=1000, update_every="epoch")
    with pytest.raises(InputError, match="rewind_step must come before the first pruning, got 1000 and a"):
        advance(TinyTask(), _training(method=method), tmp_path, 4)
    assert not list(tmp_path.iterdir())


def test_a_rewound_ticket_is_averaged_only_once_it_stops_improving_itself(tmp_path):
    task = TinyTask()
    task.recipe = replace(task.recipe, learning_rate=4.0)  # overshoots, so it averages
    training = _training(
        method=hp.methods.lottery_ticket(num_rounds=2, update_every="epoch"), total_epochs=24
    )
    whole = advance(task, training, tmp_path / "whole", 24).epochs
    updates = [record.topology.num_updates for record in whole if record.topology is not None]
    first, last = (updates.index(count) for count in (1, 2))  # the first epochs with rewound weights
    assert whole[first - 1].averaging
    # No ticket's own loss rises here, though each begins far above what the one before it reached.
    assert not any(record.averaging for record in whole[first:])
    for to_epoch in (first - 1, first, last, 24):
        pieces = advance(task, training, tmp_path / "pieces", to_epoch)
    assert [record.metric for record in pieces.epochs] == [record.metric for record in whole]


@pytest.mark.parametrize(("method", "epochs"), [("gmp", 3), ("iterative_magnitude", 3), ("narang", 1)])
def test_a_last_pruning_that_nobody_would_judge_is_refused(tmp_path, method, epochs):
    late = _training(method=hp.methods.get(method, update_every="epoch"), total_epochs=epochs)
    with pytest.raises(
        InputError, match=f"must come before the last of {epochs} epochs, .* lower end, train"
    ):
        advance(TinyTask(), late, tmp_path, epochs)
    early = replace(late, total_epochs=4)  # the last pruning follows epoch 3
    result = advance(TinyTask(), early, tmp_path, 4)
    assert [record.at_sparsity for record in result.epochs] == [False, False, False, False, True]


def test_a_method_whose_step_is_refused_fails_the_candidate_with_what_it_reached(tmp_path, monkeypatch):
    def refuse(self, scaler=None):
        raise InputError("the step must be possible, it is not; take another method")

    monkeypatch.setattr(hp.SparseTraining, "step", refuse)
    result = advance(TinyTask(), _training(method=hp.methods.rigl()), tmp_path, 4)
    assert str(result.failure).startswith("training failed in epoch 1: the step must be possible")
    assert len(result.epochs) == 1


def test_a_checkpoint_with_one_byte_changed_is_not_loaded(tmp_path):
    path = tmp_path / "weights.pt"
    save_checkpoint(path, {"weights": torch.arange(5.0), "text": "x"})
    assert load_checkpoint(path)["weights"].tolist() == [0, 1, 2, 3, 4]
    data = bytearray(path.read_bytes())
    for position in range(0, len(data), 97):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(DamagedCheckpointError, match=r"damaged|not a hyperprune checkpoint"):
            load_checkpoint(path)
    path.write_bytes(data[:-1])
    with pytest.raises(DamagedCheckpointError, match="damaged"):
        load_checkpoint(path)


def test_best_weights_of_another_epoch_than_the_checkpoint_tells_are_made_again(tmp_path):
    whole = advance(TinyTask(), _training(), tmp_path, 5)
    assert whole.best_epoch is not None
    assert whole.best_epoch > 1
    (tmp_path / "best.pt").write_bytes(b"damaged")

    def stop(record):
        if record.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # begun again from the start, for want of the best weights
        advance(TinyTask(), _training(), tmp_path, 5, on_epoch=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "epoch-00000.pt", "epoch-00001.pt"]
    again = advance(TinyTask(), _training(), tmp_path, 5)
    assert again.best_epoch == whole.best_epoch == epoch_of_best(tmp_path)


def test_best_weights_beyond_the_epoch_asked_for_are_made_again(tmp_path):
    for epoch in (4, 5):
        result = advance(TinyTask(), _training(), tmp_path, epoch)
    assert result.best_epoch == epoch_of_best(tmp_path) == 5
    result = advance(TinyTask(), _training(), tmp_path, 4)
    assert result.best_epoch == epoch_of_best(tmp_path)


def test_a_missing_cuda_device_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match="needs a CUDA GPU and none is available"):
        advance(TinyTask(), _training(device="cuda"), tmp_path, 1)


@dataclass(frozen=True)
class Pair:
    """A state as users write them."""

    first: Any
    second: Any

    def __iter__(self):
        return iter((self.first, self.second))


def _containers(inner):
    return st.lists(inner) | st.tuples(inner, inner) | st.builds(Pair, inner, inner)


@given(st.recursive(st.integers(0, 9), _containers))
def test_every_tensor_of_a_nested_value_is_mapped_and_the_shape_kept(value):
    def lift(item):
        if isinstance(item, int):
            return torch.tensor(float(item), requires_grad=True)
        return rebuilt(item, lift)

    def lower(item):
        return int(item) if isinstance(item, torch.Tensor) else rebuilt(item, lower)

    def rebuilt(item, function):
        inner = map(function, item)
        return Pair(*inner) if isinstance(item, Pair) else type(item)(inner)

    state = detached(lift(value))
    assert lower(state) == value
    flags = []
    map_tensors(state, lambda tensor: flags.append(tensor.requires_grad) or tensor)
    assert not any(flags)


def test_a_packed_sequence_in_a_batch_moves_without_its_batch_sizes():
    packed = pack_sequence([torch.ones(2, 4), torch.ones(3, 4)], enforce_sorted=False)
    ((moved,), flags) = to_device(([packed], torch.ones(2)), torch.device("meta"))
    on_meta = (moved.data, moved.sorted_indices, moved.unsorted_indices, flags)
    assert {tensor.device.type for tensor in on_meta} == {"meta"}
    assert torch.equal(moved.batch_sizes, packed.batch_sizes)
