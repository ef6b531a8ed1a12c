"""What the report says of each artifact."""

from workflow.tradeoff.files import write_json
from workflow.tradeoff.report import page as report


def test_what_is_made_of_a_model_has_its_licence(tmp_path):
    """Also by way of a float32 file that is no cell; what somebody else published has its own."""
    made = {
        "models/m": {"digest": "m", "license": "apache-2.0"},
        "artifacts/m/onnx-int8": {"digest": "q", "made_from": "an export", "model": "m"},
        "artifacts/m/gguf-q8_0": {"digest": "g", "made_from": "m"},
        "artifacts/m/checkpoint-awq": {"digest": "c", "made_from": "m", "license": "mit"},
        "artifacts/n/gguf-q8_0": {"digest": "o", "made_from": "n"},
    }
    for folder, data in made.items():
        write_json(tmp_path / folder / "manifest.json", {"source": {}, "files": {}, **data})
    found = report.manifests([tmp_path / folder / "manifest.json" for folder in made])
    assert [entry["license"] for entry in found] == ["apache-2.0", "apache-2.0", "apache-2.0", "mit", None]
