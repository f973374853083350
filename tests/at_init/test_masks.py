"""Masks: exact counts, ties, rankings, what stays untouched, and what training makes of them."""

import copy

import pytest
import torch
from nets import FEATURES, HIDDEN, batch, loss_of, net
from torch import nn

import hyperprune as hp
from hyperprune import at_init
from hyperprune.at_init import ranking
from hyperprune.errors import InputError, NumericsError
from hyperprune.models import RHN, PeepholeLSTM

KEPT = {"sparsity": 0.5, "allow_empty": True}


def counts(masks):
    return {name: int(mask.count_nonzero()) for name, mask in masks.items()}


def shuffled(data):
    """As a DataLoader, which draws from the global generator when its batches are asked for."""
    torch.rand(1)
    yield data


@pytest.mark.parametrize("name", at_init.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_criterion_keeps_exactly_so_many_and_leaves_no_trace(name, dtype):
    model = net("lstm_2").to(dtype).train()
    model.readout.eval()
    data = (batch()[0].to(dtype), batch()[1])
    criterion = at_init.get(name, **({"num_exponents": 2} if name == "experimental_lyapunov" else {}))
    criterion = at_init.get(name, horizon=3) if "horizon" in criterion.settings() else criterion
    if name == "experimental_lyapunov":
        criterion = at_init.experimental_lyapunov(horizon=3, num_exponents=2)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    masks = hp.prune_at_init(model, loss_of, [data], criterion=criterion, sparsity=0.7, allow_empty=True)
    total = sum(mask.numel() for mask in masks.values())
    assert list(masks) == [f"rnn.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")]
    assert all(mask.dtype == torch.bool for mask in masks.values())
    assert sum(counts(masks).values()) == total - round(0.7 * total)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert model.rnn.training
    assert not model.readout.training
    hp.prune_at_init(model, loss_of, shuffled(data), criterion=criterion, sparsity=0.7, allow_empty=True)
    assert torch.equal(state, torch.get_rng_state())
    again = hp.prune_at_init(model, loss_of, [data], criterion=criterion, sparsity=0.7, allow_empty=True)
    assert all(torch.equal(masks[key], again[key]) for key in masks)


@pytest.mark.parametrize("name", ["snip", "grasp", "jacobian", "magnitude"])
def test_the_largest_scores_are_kept(name):
    model, data = net("gru"), batch()
    scores = at_init.scores(model, loss_of, [data], criterion=name)
    masks = hp.prune_at_init(model, loss_of, [data], criterion=name, **KEPT)
    kept = torch.cat([scores[key][masks[key]] for key in scores])
    dropped = torch.cat([scores[key][~masks[key]] for key in scores])
    assert len(kept) == len(dropped) == 12
    assert kept.min() >= dropped.max()


def test_signed_scores_rank_by_sign_and_ties_go_to_the_earlier_tensor_and_index():
    scores = {"a": torch.tensor([-1.0, 0.0, 2.0]), "b": torch.tensor([0.0, -3.0, 2.0, -1.0])}
    order = [("a", 2), ("b", 2), ("a", 1), ("b", 0), ("a", 0), ("b", 3), ("b", 1)]
    for count in range(8):
        masks = ranking.best(scores, count)
        kept = {(name, int(place)) for name, mask in masks.items() for place in mask.nonzero()}
        assert kept == set(order[:count])


def test_ranking_by_tensor_keeps_the_same_share_of_each():
    model, data = net("gru"), batch()
    masks = hp.prune_at_init(model, loss_of, [data], criterion="snip", sparsity=0.75, ranking="tensor")
    assert counts(masks) == {"rnn.weight_ih_l0": 3, "rnn.weight_hh_l0": 3}


@pytest.mark.parametrize(("ranking", "parameters"), [("tensor", ["rnn.*"]), ("global", ["*.weight*"])])
def test_rounds_never_give_back_what_an_earlier_one_took(ranking, parameters):
    model = nn.ModuleDict({"rnn": nn.GRU(1, 3, 2, bias=False), "a": nn.Linear(4, 5), "b": nn.Linear(7, 3)})
    for sparsity in (0.9, 0.95, 0.98):  # shares of 9, 27, 27 and 27 weights round up in turn
        masks = hp.prune_at_init(
            model,
            criterion=at_init.synflow(rounds=40),
            sparsity=sparsity,
            ranking=ranking,
            parameters=parameters,
            elsewhere="random",
            allow_empty=True,
        )
        total = sum(mask.numel() for mask in masks.values())
        assert sum(counts(masks).values()) == total - round(sparsity * total)


def test_any_parameters_can_be_scored_by_the_loss():
    model, data = net("gru"), batch()
    masks = hp.prune_at_init(
        model, loss_of, [data], criterion="snip", parameters=["*weight*", "readout.bias"], **KEPT
    )
    assert set(masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "readout.weight", "readout.bias"}


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_an_embedding_with_sparse_gradients_is_scored_as_one_with_dense_ones(criterion):
    class Reader(nn.Module):
        def __init__(self, *, is_sparse):
            super().__init__()
            self.embedding = nn.Embedding(10, FEATURES, sparse=is_sparse)
            self.net = net("gru")

        def forward(self, tokens):
            return self.net(self.embedding(tokens).double())

    tokens = torch.randint(10, (4, 3), generator=torch.Generator().manual_seed(0))
    labels = batch()[1]
    scores, masks = [], []
    for is_sparse in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Reader(is_sparse=is_sparse)
        settings = {"criterion": criterion, "parameters": ["embedding.weight", "*weight_hh*"]}
        scores.append(at_init.scores(model, loss_of, [(tokens, labels)], **settings))
        masks.append(hp.prune_at_init(model, loss_of, [(tokens, labels)], sparsity=0.5, **settings))
    for name, expected in scores[1].items():
        torch.testing.assert_close(scores[0][name], expected)  # sums are ordered otherwise
    assert counts(masks[0]) == counts(masks[1])


def test_tensors_that_the_jacobian_cannot_score_may_keep_the_same_share_at_random():
    model, data = net("gru"), batch()
    masks = hp.prune_at_init(
        model, loss_of, [data], parameters=["*weight*"], elsewhere="random", sparsity=0.5, allow_empty=True
    )
    assert counts(masks)["readout.weight"] == 3
    assert sum(counts(masks).values()) == 15
    own = hp.prune_at_init(model, loss_of, [data], **KEPT)
    assert torch.equal(own["rnn.weight_hh_l0"], masks["rnn.weight_hh_l0"])


@pytest.mark.parametrize("peephole", ["full", "diagonal"])
def test_a_diagonal_peephole_is_no_matrix(peephole):
    model = PeepholeLSTM(3, 4, peephole=peephole)
    masks = hp.prune_at_init(model, criterion="magnitude", sparsity=0.5)
    assert ("weight_peephole_l0" in masks) == (peephole == "full")


SYNFLOW = {
    "lstm": lambda: nn.LSTM(5, 8, num_layers=2),
    "projected": lambda: nn.LSTM(5, 8, proj_size=3, num_layers=2),
    "gru": lambda: nn.GRU(5, 8),
    "peephole": lambda: PeepholeLSTM(5, 8, peephole="full"),
    "rhn": lambda: RHN(5, 8, 3),
    "two": lambda: nn.Sequential(nn.GRU(5, 8), nn.LSTM(6, 4)),
}


@pytest.mark.parametrize("kind", SYNFLOW)
def test_synflow_gives_every_layer_the_same_sum_and_empties_none(kind):
    torch.manual_seed(0)
    model = SYNFLOW[kind]().double()
    sums = {name: score.sum().item() for name, score in at_init.scores(model, criterion="synflow").items()}
    # A projection lies on the path twice: R is quadratic in it, and its scores sum to 2 R.
    flow = sums[min(sums)]
    for name, total in sums.items():
        assert total == pytest.approx((2 if "_hr_" in name else 1) * flow, rel=1e-12)
    total = sum(parameter.numel() for name, parameter in model.named_parameters() if parameter.ndim == 2)
    num_matrices = len(sums)
    masks = hp.prune_at_init(model, criterion="synflow", sparsity=1 - 3 * num_matrices / total)
    assert sum(counts(masks).values()) == 3 * num_matrices
    assert min(counts(masks).values()) >= 1
    # What is left still is a path from end to end.
    assert all(
        score.sum() > 0 for score in at_init.scores(_masked(model, masks), criterion="synflow").values()
    )


def _masked(model, masks):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model


def test_synflow_in_one_round_can_empty_what_a_hundred_rounds_keep():
    # A wide thin layer shares its flow among many weights: each is small, and all fall together.
    model = nn.Sequential(nn.RNN(60, 6), nn.RNN(6, 2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    one = hp.prune_at_init(model, criterion=at_init.synflow(rounds=1), sparsity=0.97, allow_empty=True)
    assert min(counts(one).values()) == 0
    many = hp.prune_at_init(model, criterion="synflow", sparsity=0.97)
    assert min(counts(many).values()) >= 1


@pytest.mark.parametrize("method", [hp.methods.static(), hp.methods.rigl(update_every=2), hp.methods.set_()])
def test_masks_are_where_training_starts(method):
    model, data = net("gru", seed=2), batch()
    masks = hp.prune_at_init(model, loss_of, [data], criterion="magnitude", sparsity=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = hp.SparseTraining(
        model, optimizer, method, masks=masks, total_steps=10, generator=torch.Generator().manual_seed(0)
    )
    assert all(torch.equal(sparse.masks[name], masks[name]) for name in masks)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(model, data).backward()
        sparse.step()
    sparse.end_epoch()
    assert sum(counts(sparse.masks).values()) == 12
    moved = any(not torch.equal(sparse.masks[name], masks[name]) for name in masks)
    assert moved == (method.name != "static")


def test_an_empty_tensor_is_for_a_static_method_that_allows_it():
    model = net("gru")
    masks = {
        "rnn.weight_ih_l0": torch.ones(3 * HIDDEN, FEATURES, dtype=torch.bool),
        "rnn.weight_hh_l0": torch.zeros(3 * HIDDEN, HIDDEN, dtype=torch.bool),
    }
    settings = {"masks": masks, "total_steps": 5, "generator": torch.Generator().manual_seed(0)}
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(InputError, match=r"rnn\.weight_hh_l0 keeps no live weight"):
        hp.SparseTraining(model, optimizer, hp.methods.static(), **settings)
    sparse = hp.SparseTraining(model, optimizer, hp.methods.static(allow_empty=True), **settings)
    loss_of(model, batch()).backward()
    sparse.step()
    assert not bool(model.rnn.weight_hh_l0.any())


def test_saved_masks_come_back(tmp_path):
    masks = hp.prune_at_init(net("gru"), criterion="magnitude", sparsity=0.5)
    at_init.save_masks(tmp_path / "masks.npz", masks)
    loaded = at_init.load_masks(tmp_path / "masks.npz")
    at_init.save_masks(tmp_path / "masks", masks)
    assert at_init.load_masks(tmp_path / "masks").keys() == masks.keys()
    assert list(loaded) == list(masks)
    assert all(torch.equal(loaded[name], masks[name]) for name in masks)


def test_a_loss_that_draws_numbers_is_scored_alike_each_time():
    model, data = net("gru"), batch()

    def noisy(model, pair):
        return (model(pair[0]) * torch.rand(())).square().sum()

    first, second = (at_init.scores(model, noisy, [data], criterion="snip") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_dropout_is_off_while_scores_are_computed():
    model, data = net("lstm_2"), batch()
    expected = at_init.scores(model, loss_of, [data], criterion="snip")
    model.rnn.dropout = 0.5
    found = at_init.scores(model.train(), loss_of, [data], criterion="snip")
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_scores_that_are_not_finite_are_named():
    model, data = net("gru"), batch()

    def huge(model, pair):
        return model(pair[0]).sum() * 1e300 * 1e10

    with pytest.raises(NumericsError, match=r"loss must be finite"):
        hp.prune_at_init(model, huge, [data], criterion="snip")
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"magnitude gave 1 of 12 for rnn\.weight_hh_l0"):
        hp.prune_at_init(model, criterion="magnitude")
    with pytest.raises(NumericsError, match="states must be finite"):
        hp.prune_at_init(model, loss_of, [data], criterion=at_init.jacobian(horizon=2))
