"""Which matrices a mix keeps wider, by their names."""

import pytest

from workflow.tradeoff.prepare import matmul_nbits


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("/model/layers.29/self_attn/v_proj/MatMul", True),
        ("/model/layers.29/self_attn/q_proj/MatMul", False),
        ("/model/layers.29/mlp/gate_proj/MatMul", False),
        ("/transformer/h.29/mlp/dense_4h_to_h/MatMul", True),
        ("/transformer/h.29/self_attention/query_key_value/MatMul", True),
        ("/transformer/h.29/attn/c_proj/MatMul", False),  # the way out of attention, not of the MLP
        ("/model/decoder/layers.29/fc2/MatMul", True),
        ("/model/decoder/layers.29/fc1/MatMul", False),
        ("/gpt_neox/layers.29/attention/query_key_value/Gemm_MatMul", True),
        ("/model/layers.3/mlp/down_proj/MatMul", False),  # neither in an eighth at the ends nor a third between
    ],
)
def test_the_matrices_that_matter_are_known_by_the_names_of_each_family(name, kept):
    names = [name, "/model/layers.29/self_attn/o_proj/MatMul", "/model/layers.29/mlp/down_proj/MatMul", "/lm_head"]
    assert (name in matmul_nbits.wider(names, "mix")) == kept
    assert matmul_nbits.wider(names, "head") == {"/lm_head"} and matmul_nbits.wider(names, "none") == set()
