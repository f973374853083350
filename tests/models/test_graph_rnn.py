"""The graph-wired network against a reference that goes node by node, and what keeps its masks exact."""

import copy
import math

import networkx as nx
import pytest
import torch
from torch import nn

from hyperprune import SparseTraining, methods
from hyperprune.errors import InputError
from hyperprune.graphs import GraphPlan, layered
from hyperprune.models.graph_classifier import GraphClassifier, load_network, save_network
from hyperprune.models.graph_rnn import CELLS, GraphRNN, WiredLayer
from hyperprune.sparsity.counts import num_live_at
from hyperprune.sparsity.parameters import matrix_shape


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small_graph(seed=0, nodes=13):
    return layered(GraphPlan.of("watts_strogatz", nodes, seed=seed, neighbours=4).build())


def network(cell, **settings):
    model = GraphRNN(small_graph(), cell, generator=seeded(), **settings).double()
    for bias in (p for name, p in model.named_parameters() if "bias" in name):
        nn.init.uniform_(bias, -1, 1, generator=seeded(1))  # biases apart from the weights' own draws
    return model


def node_by_node(model, inputs):
    """The definition: one unit at a time, from the graph's edges alone; returns what every node gives out.

    A recurrent layer is a pair of layers (source, target); its unit for node v sees the outputs of v's
    predecessors in the source layer and the past of its own layer's units. A node gives out the sum of its
    units over all recurrent layers that end in its layer.
    """
    graph = model.graph
    num_steps, batch = inputs.shape[:2]
    predecessors = {node: [a for a, b in graph.edges if b == node] for node in range(graph.num_nodes)}
    zero = torch.zeros(batch, dtype=inputs.dtype)
    hidden = {(b.source, b.target): dict.fromkeys(graph.layers[b.target], zero) for b in model.blocks()}
    cells = {pair: dict(states) for pair, states in hidden.items()}
    outputs = []
    for step in range(num_steps):
        gives = dict.fromkeys(range(graph.num_nodes), zero)
        for block in model.blocks():
            pair = block.source, block.target
            own, width = graph.layers[block.target], len(graph.layers[block.target])
            new_hidden = {}
            for place, node in enumerate(own):
                from_below, from_past = [], []
                for gate in range(CELLS[model.cell].num_gates):
                    row = gate * width + place
                    below = block.bias_ih[row]
                    if block.source is None:
                        below = below + sum(
                            block.weight_ih[row, i] * inputs[step, :, i] for i in range(inputs.shape[2])
                        )
                    else:
                        lower = graph.layers[block.source]
                        for other in predecessors[node]:
                            if other in lower:
                                below = below + block.weight_ih[row, lower.index(other)] * gives[other]
                    past = block.bias_hh[row]
                    for column, other in enumerate(own):
                        past = past + block.weight_hh[row, column] * hidden[pair][other]
                    from_below.append(below)
                    from_past.append(past)
                new_hidden[node], cells[pair][node] = unit(
                    model.cell, from_below, from_past, hidden[pair][node], cells[pair][node]
                )
            hidden[pair] = new_hidden
            for node in own:
                gives[node] = gives[node] + new_hidden[node]
        outputs.append(torch.stack([gives[node] for node in graph.layers[-1]], dim=1))
    return torch.stack(outputs)


def unit(cell, below, past, h, c):
    if cell == "gru":
        reset = torch.sigmoid(below[0] + past[0])
        update = torch.sigmoid(below[1] + past[1])
        new = torch.tanh(below[2] + reset * past[2])
        return (1 - update) * new + update * h, c
    z = [a + b for a, b in zip(below, past, strict=True)]
    if cell == "lstm":
        c = torch.sigmoid(z[1]) * c + torch.sigmoid(z[0]) * torch.tanh(z[2])
        return torch.sigmoid(z[3]) * torch.tanh(c), c
    return (torch.tanh(z[0]) if cell == "rnn" else torch.relu(z[0])), c


@pytest.mark.parametrize("cell", CELLS)
def test_it_computes_what_the_definition_says_node_by_node(cell):
    model = network(cell)
    graph = model.graph
    assert len(graph.layers) >= 4
    assert any(b - a > 1 for a, b in graph.links)  # there are skip edges
    inputs = torch.randn(6, 3, model.input_size, dtype=torch.float64, generator=seeded(2))
    outputs, _ = model(inputs)
    torch.testing.assert_close(outputs, node_by_node(model, inputs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_in_pieces_is_the_sequence_and_a_step_is_a_sequence_of_one(cell):
    model = network(cell, input_size=5)
    inputs = torch.randn(7, 2, 5, dtype=torch.float64, generator=seeded(2))
    whole, end = model(inputs)
    first, state = model(inputs[:4])
    second, last = model(inputs[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(last, end)
    torch.testing.assert_close(model.step(inputs[4], state), model(inputs[4:5], state)[1])


def test_there_is_a_weight_for_each_edge_and_gate_and_none_besides():
    model = network("gru")
    graph = model.graph
    blocks = model.blocks()
    assert (blocks[0].source, blocks[0].target) == (None, 0)
    assert [(block.source, block.target) for block in blocks[1:]] == sorted(
        graph.links, key=lambda pair: (pair[1], pair[0])
    )
    for block in blocks[1:]:
        assert block.source is not None
        below, own = graph.layers[block.source], graph.layers[block.target]
        for gate in block.weight_ih.chunk(3):
            edges = {(below[column], own[row]) for row, column in gate.nonzero().tolist()}
            assert edges == set(graph.links[block.source, block.target])
    sources = len(graph.layers[0])
    recurrent = sum(len(graph.layers[block.target]) ** 2 for block in blocks)
    assert model.num_weights() == 3 * (len(graph.edges) + sources * sources + recurrent)
    assert model.num_weights() == sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert model.num_units == sum(len(graph.layers[block.target]) for block in blocks)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
    ],
)
def test_the_wiring_is_exact_under_any_optimizer_and_in_a_copy(optimizer):
    model = copy.deepcopy(GraphRNN(small_graph(), "lstm", generator=seeded()))
    wiring = [(block.weight_ih != 0, block.weight_ih) for block in model.blocks()]
    steps = optimizer(model.parameters())
    for _ in range(3):
        steps.zero_grad()
        model(torch.randn(5, 2, model.input_size, generator=seeded(3)))[0].square().sum().backward()
        steps.step()
    for (wired, before), block in zip(wiring, model.blocks(), strict=True):
        assert not block.weight_ih[~wired].any()
        assert bool((block.weight_ih != before)[wired].any())


def test_weights_start_as_those_of_recurrent_layers_by_themselves():
    model = GraphRNN(small_graph(nodes=40), "gru", generator=seeded())
    for block in model.blocks():
        limit = 1 / math.sqrt(len(model.graph.layers[block.target]))
        for tensor in (block.weight_ih, block.weight_hh, block.bias_ih):
            assert tensor.abs().max() <= limit
        assert block.weight_hh.abs().max() > 0.6 * limit
    twin = GraphRNN(small_graph(nodes=40), "gru", generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_pruning_method_works_on_the_weights_that_the_graph_has():
    model = GraphRNN(small_graph(), "gru", generator=seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = methods.set_(update_every=1, death_rate=0.5, allocation="uniform")
    sparse = SparseTraining(model, optimizer, method, sparsity=0.5, total_steps=4, generator=seeded())
    half = sum(row.live for row in sparse.summary())
    assert half == num_live_at(0.5, model.num_weights())
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 2, model.input_size, generator=seeded(3)))[0].sum().backward()
        sparse.step()
    assert sum(row.live for row in sparse.summary()) == half
    matrices = [block.weight_ih.count_nonzero() + block.weight_hh.count_nonzero() for block in model.blocks()]
    assert sum(int(count) for count in matrices) <= half


@pytest.mark.parametrize("cell", CELLS)
def test_er_spreads_by_the_matrices_and_not_by_how_their_weights_are_stored(cell):
    stack = layered(GraphPlan.of("stack", 12, seed=0, layers=3).build())  # matrices of 4 by 4 alone
    model = GraphRNN(stack, cell, generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(
        model, optimizer, methods.static(allocation="er"), sparsity=0.5, total_steps=1, generator=seeded()
    )
    assert {row.density for row in sparse.summary()} == {0.5}


def test_the_matrices_have_the_shapes_that_a_layer_says():
    model = GraphRNN(small_graph(), "gru", generator=seeded())
    layers = [layer for layer in model.layers if isinstance(layer, WiredLayer)]
    assert any(layer.num_blocks > 1 for layer in layers)
    for number, layer in enumerate(layers):
        for name, matrix in zip(("weight_ih", "weight_hh"), layer.matrices(), strict=True):
            assert matrix_shape(model, f"layers.{number}.{name}") == matrix.shape


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_padding_is_read_only_when_asked_for(cell):
    graph = small_graph()
    model = GraphClassifier(graph, cell, generator=seeded())
    codes = torch.randint(1, 128, (9, 4), generator=seeded(1))
    lengths = torch.tensor([9, 3, 6, 1])
    padded = codes.where(torch.arange(9)[:, None] < lengths, torch.zeros_like(codes))
    scores = model(padded, lengths)
    for column, length in enumerate(lengths.tolist()):
        alone = model(codes[:length, column : column + 1], torch.tensor([length]))
        torch.testing.assert_close(scores[column : column + 1], alone)
    thesis = GraphClassifier(graph, cell, read_padding=True, generator=seeded())
    torch.testing.assert_close(thesis(padded, lengths)[0], scores[0])
    outputs, _ = model.rnn(model.embedding(padded))
    torch.testing.assert_close(thesis(padded, lengths), model.readout(outputs[-1]))
    assert not torch.allclose(thesis(padded, lengths)[1], scores[1])


def test_a_network_comes_back_from_one_file_with_its_graph(tmp_path):
    path = tmp_path / "network.pt"
    model = GraphClassifier(small_graph(), "gru", num_codes=30, num_classes=3, generator=seeded()).eval()
    save_network(model, path)
    again = load_network(path)
    assert isinstance(again, GraphClassifier)
    assert again.rnn.graph == model.rnn.graph
    codes, lengths = torch.randint(0, 30, (6, 2), generator=seeded(1)), torch.tensor([6, 4])
    assert torch.equal(again(codes, lengths), model(codes, lengths))
    recurrent = GraphRNN(small_graph(), "lstm", input_size=4, generator=seeded()).double()
    save_network(recurrent, path)
    inputs = torch.randn(3, 2, 4, dtype=torch.float64)
    assert torch.equal(load_network(path)(inputs)[0], recurrent(inputs)[0])


def test_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "network.pt"
    with pytest.raises(InputError, match=r"a network must be a readable file, got .*: No such file"):
        load_network(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(InputError, match=r"network.pt must be a file of save_network"):
        load_network(path)
    save_network(GraphRNN(small_graph(), generator=seeded()), path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"network.pt is damaged"):
        load_network(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GraphRNN(small_graph(), "tanh"), "unknown cell 'tanh'; .*known: gru, lstm, rnn, rnn_relu"),
        (lambda: GraphRNN(small_graph(), input_size=0), "input_size must be at least 1, got 0"),
        (
            lambda: network("rnn")(torch.zeros(4, 2, 99).double()),
            r"shape \(time, batch, \d+\) .* \(4, 2, 99\)",
        ),
        (
            lambda: network("lstm", input_size=2)(torch.zeros(4, 2, 2).double(), torch.zeros(2, 3).double()),
            r"state of a 'lstm' network must have 2 part\(s\)",
        ),
    ],
)
def test_wrong_shapes_and_names_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_path_of_single_nodes_is_a_stack_of_single_units():
    model = GraphRNN(layered(nx.path_graph(3)), "gru", generator=seeded())
    stack = nn.GRU(1, 1, 3)
    for index, block in enumerate(model.blocks()):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            stack.get_parameter(f"{name}_l{index}").data.copy_(getattr(block, name))
    inputs = torch.randn(8, 2, 1, generator=seeded(4))
    torch.testing.assert_close(model(inputs)[0], stack(inputs)[0])
