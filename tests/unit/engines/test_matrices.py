"""What a token's step multiplies by, reads and caches, against counts made by hand from the sizes in tiny.py."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests import tiny
from workflow.tradeoff.engines import hf, matrices, onnx_graph
from workflow.tradeoff.variants import VARIANTS

H, F, V = 64, 128, tiny.VOCAB  # hidden and feed-forward width, vocabulary; 2 layers, 4 heads of 16, 2 of keys
ATTENTION = H * H + 2 * H * 32 + H * H  # q, k, v, output
MULTI_QUERY = H * (H + 2 * 16) + H * H  # four heads of queries, one of keys and one of values; output
ALL_OF_FALCON = 2 * (MULTI_QUERY + 8 * H * H) + V * H
# by kind: weights in matrices, of which bitsandbytes leaves alone, bytes of keys and values a token in float32
COUNTS = {
    "llama": (2 * (ATTENTION + 3 * H * F) + V * H, V * H, 2 * 2 * 32 * 4),
    "gpt2": (2 * (4 * H * H + 8 * H * H) + V * H, V * H, 2 * 2 * 64 * 4),
    # eight experts of three matrices in 3-D tensors and a router, which is no linear layer either: both stay in float
    "granitemoe": (2 * (ATTENTION + 8 * 3 * H * F + 8 * H) + V * H, 2 * 8 * (3 * H * F + H) + V * H, 2 * 2 * 32 * 4),
    # its layers are of a class of their own, which bitsandbytes passes by
    "falcon": (ALL_OF_FALCON, ALL_OF_FALCON, 2 * 2 * 16 * 4),
    "bigcode": (2 * (MULTI_QUERY + 8 * H * H) + V * H, V * H, 2 * 2 * 16 * 4),
}


def load(folder, variant="torch-fp32"):
    return hf.load(VARIANTS[variant], folder, folder, "cpu", 1)


@pytest.fixture(scope="module", params=COUNTS)
def kind(request, tmp_path_factory):
    return request.param, tiny.build(tmp_path_factory.mktemp("model") / request.param, request.param)


def test_every_matrix_counts_whatever_its_layout(kind):
    name, folder = kind
    total, left, _ = COUNTS[name]
    assert load(folder).proof()["linear_weights"] == total
    proof = load(folder, "bnb-int8").proof()
    assert (proof["linear_weights"], proof["linear_quantized"]) == (total, total - left)
    assert sum(proof["left_unquantized"].values()) == left
    assert "lm_head" in proof["left_unquantized"]
    if name == "granitemoe":
        largest, size = next(iter(proof["left_unquantized"].items()))
        assert "layers.*." in largest and size == 2 * 8 * 2 * H * F  # gate and up of all experts
        assert proof["quantized_fraction"] < 0.1  # of nn.Linear alone it would be more than a half


def test_keys_and_values_are_the_caches_own(kind):
    name, folder = kind
    each = COUNTS[name][2]
    assert load(folder).cache_bytes(100) == 100 * each
    assert load(folder, "torch-bf16").cache_bytes(100) == 100 * each // 2


@pytest.mark.parametrize(("experts", "used"), [(8, 2), (8, 1), (4, 4)])
@pytest.mark.parametrize("name", ["granitemoe", "mixtral"])
def test_a_token_reads_the_experts_that_it_is_sent_to(tmp_path, name, experts, used):
    config = tiny.config(name)
    config.num_local_experts, config.num_experts_per_tok = experts, used
    folder = tiny.build(tmp_path / name, name, settings=config)
    proof = load(folder).proof()
    matrix = 4 * H * F
    idle = 2 * (experts - used) * 3 * matrix
    table = 4 * (V - 1) * H  # of the embedding one row is read; the head is another matrix
    # and the angles' first values, eight of them in float32, which only a change of their scaling would read
    assert proof["unread_bytes"] == idle + table + 8 * 4


def test_tables_that_are_only_added_are_no_matrices(tmp_path):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.places, self.mix = nn.Parameter(torch.ones(6, 4)), nn.Parameter(torch.ones(3, 4, 4))

        def forward(self, ids):
            x = self.table(ids) + self.places[: len(ids)]
            return self.head(torch.einsum("ti,eio->to", x, self.mix))

    network = Network()
    seen = matrices.watch(network, list(network.parameters()), lambda: network(torch.tensor([1, 2])))
    assert sorted(matrices.products(network, seen)) == [("head", 40, 32), ("mix", 48, 32)]
    # two rows of the table and of the places, and both matrices
    assert seen.read() == 4 * (2 * 4 + 2 * 4 + 40 + 48)


@pytest.mark.parametrize("names", [("in_features", "out_features"), ("infeatures", "outfeatures")])
def test_a_layer_that_keeps_packed_integers_counts_by_its_features(names):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            for name, size in zip(names, (64, 32), strict=True):
                setattr(self, name, size)
            self.register_buffer("qweight", torch.zeros(64 // 8, 32, dtype=torch.int32))
            self.register_buffer("scales", torch.zeros(1, 32))

        def forward(self, x):
            return x

    network = nn.Sequential(Packed())
    seen = matrices.watch(network, list(network.buffers()), lambda: network(torch.ones(1)))
    assert [found[1:] for found in matrices.products(network, seen)] == [(64 * 32, 4)]
    # its kernel is called past torch: what the layer holds is read
    assert seen.read() == sum(buffer.nbytes for buffer in network.buffers())


# ---- ONNX


def proof(tmp_path, nodes, weights, bits=8):
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], tensors)
    onnx.save_model(helper.make_model(graph), tmp_path / "model.onnx")
    return onnx_graph.graph_proof(tmp_path / "model.onnx", bits)


def floats(*shape):
    return np.ones(shape, np.float32)


EXPERT = [
    helper.make_node("Gather", ["experts", "which"], ["expert"], axis=0),
    helper.make_node("Transpose", ["expert"], ["turned"], perm=[1, 0]),
    helper.make_node("MatMul", ["x", "turned"], ["y"]),
]


def test_experts_of_one_tensor_count_as_a_whole(tmp_path):
    found = proof(tmp_path, EXPERT, {"experts": floats(8, 6, 4), "which": np.array(3)})  # the index has 8 bytes
    assert (found["linear_weights"], found["quantized_fraction"], found["unread_bytes"]) == (8 * 6 * 4, 0.0, 8)


def test_one_that_is_quantized_beside_experts_that_are_not(tmp_path):
    quantized = helper.make_node("MatMulInteger", ["a", "matrix"], ["b"])
    weights = {"experts": floats(8, 6, 4), "which": np.array(3), "matrix": np.ones((4, 12), np.int8)}
    assert proof(tmp_path, [quantized, *EXPERT], weights)["quantized_fraction"] == 48 / (48 + 192)


def test_slices_of_fused_projections_count_once(tmp_path):
    nodes = [
        helper.make_node("Split", ["fused"], ["q", "k"], axis=1, num_outputs=2),
        helper.make_node("MatMul", ["x", "q"], ["y"]),
        helper.make_node("MatMul", ["x", "k"], ["z"]),
    ]
    assert proof(tmp_path, nodes, {"fused": floats(4, 16)})["linear_weights"] == 64


def test_products_in_branches_count_and_embeddings_do_not(tmp_path):
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "branch"], ["out"])], "then", [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(floats(4, 5), "branch")],
    )  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "in"], ["projected"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner),
    ]
    found = proof(tmp_path, nodes, {"table": floats(100, 4), "in": floats(4, 4)})
    assert (found["linear_weights"], found["unread_bytes"]) == (20 + 16, 4 * 400)
    assert found["weight_bytes"] == {"float32": 4 * (400 + 16 + 20)}


def test_a_vector_is_no_matrix(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "frequencies"], ["y"])]
    assert proof(tmp_path, nodes, {"frequencies": floats(1, 8, 1)})["linear_weights"] == 0


def test_the_probes_fit_a_context_of_a_few_tokens(tmp_path):
    folder = tiny.build(tmp_path / "model", "gpt2", context=6)
    assert load(folder).proof()["linear_weights"] > 0
    assert load(folder).cache_bytes(6) == 6 * 2 * 2 * 64 * 4
