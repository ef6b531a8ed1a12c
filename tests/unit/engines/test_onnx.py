"""What ONNX Runtime's profile says of where its nodes ran."""

from workflow.tradeoff.engines.onnx import profile_proof


def test_a_heavy_node_on_another_provider_is_seen():
    def event(name, op, provider):
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": op, "provider": provider}}

    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    events = [event("a", "MatMul", cuda), event("b", "MatMulInteger", cpu), event("c", "MemcpyToHost", cuda)]
    found = profile_proof(events * 2, cuda)
    assert found["heavy_elsewhere"] == {"MatMulInteger": 1}
    assert found["memcpy"] == 1 and found["providers"] == {cuda: 2, cpu: 1}
