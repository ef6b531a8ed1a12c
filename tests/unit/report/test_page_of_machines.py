"""The report of a study of several kinds of machine: every model is told on each."""

import json
import re

from tests import synthetic
from tests.unit.report.test_page import CONFIG, ROOT
from workflow.tradeoff.decide.__main__ import main as decide_main
from workflow.tradeoff.files import write_json
from workflow.tradeoff.report import figures, htmltables
from workflow.tradeoff.report.__main__ import main as report_main
from workflow.tradeoff.summarize.__main__ import main as summarize_main


def test_a_study_of_two_machines_is_told_by_model_and_machine(tmp_path):
    study = synthetic.write_machines(
        tmp_path, models=2, variants=("torch-fp32", "onnx-int8-kv"), loads=synthetic.LOADS[:1]
    )
    tables = tmp_path / "tables"
    summarize_main([*study.flags(tables), "--machines", json.dumps(synthetic.KINDS)])
    decide_main(["--tables", str(tables), "--output", str(tables)])
    for kind in synthetic.KINDS:
        told = {"model": "tiny-a", "variant": "onnx-int8-kv", "command": f"serve {kind}", "scenarios": ["s"]}
        readme = f"{kind}/tiny-a/onnx-int8-kv/README.md"
        write_json(tmp_path / "deploy" / kind / "deploy.json", [told | {"readme": readme}])
    figures.main(["speed", "--tables", str(tables), "--output", str(tmp_path / "figures/speed.svg")])
    assert "tiny-b on arm" in (tmp_path / "figures/speed.svg").read_text()
    report_main(
        [
            "--tables", str(tables), "--figures", str(tmp_path / "figures"), "--environment", str(study.environment),
            "--template", str(ROOT / "report/report.md.j2"), "--config", json.dumps(CONFIG),
            "--deploy", *(str(tmp_path / "deploy" / kind / "deploy.json") for kind in synthetic.KINDS),
            "--output", str(tmp_path / "report.md"),
        ]
    )  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert "### tiny-a on arm\n" in text and "### tiny-b on cpu-amx\n" in text
    assert "To serve tiny-a on arm as onnx-int8-kv" in text
    assert "(deploy/arm/tiny-a/onnx-int8-kv/README.md)" in text
    assert "### Cost across machines" in text and "| Legacy (Tesla T4) | Prefer ONNX Runtime |" in text
    assert "`scored_on`" in text and "nan" not in re.findall(r"[a-z]+", text)
    htmltables.main(["summary", "--tables", str(tables), "--output", str(tmp_path / "html")])
    page = (tmp_path / "html" / "summary.html").read_text()
    assert ">machine <select" in page and "<option>arm</option>" in page
