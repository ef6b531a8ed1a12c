"""What the end of `make demo` prints."""

from tests import synthetic
from workflow.tradeoff.report import show
from workflow.tradeoff.summarize.__main__ import main as summarize_main

NAMES = ("torch-fp32", "torch-bf16", "bnb-int8", "bnb-nf4", "onnx-int8-kv")


def test_cells_without_figures_say_why_once_a_reason(tmp_path, capsys):
    faults = {("tiny-a", "onnx-int8-kv"): "not_quantized", ("tiny-a", "bnb-nf4"): "out_of_memory"}
    faults |= {("tiny-a", "bnb-int8"): "out_of_memory"}
    study = synthetic.write(tmp_path, models=1, variants=NAMES, faults=faults)
    summarize_main(study.flags(tmp_path / "tables"))
    show.main(["--tables", str(tmp_path / "tables")])
    table, *reasons = capsys.readouterr().out.rstrip("\n").split("\n\n")
    assert len(table.splitlines()) == 2 + len(NAMES)
    assert sorted(line.partition(": ")[0] for line in reasons) == [
        "tiny-a/bnb-int8, tiny-a/bnb-nf4",
        "tiny-a/onnx-int8-kv",
    ]
    assert any(": not quantized: only " in line for line in reasons), reasons
    assert any(": out of memory: planted" in line for line in reasons), reasons
