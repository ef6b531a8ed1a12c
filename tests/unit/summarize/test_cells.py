"""Raw facts that no stage can have written are one line that names the file."""

import json

import pytest

from tests import synthetic
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.summarize import cells


@pytest.mark.parametrize("value", [-0.01, 0, float("inf"), float("nan"), None, "0.01"])
@pytest.mark.parametrize("key", ["ttft_s", "itl_s"])
def test_a_time_that_none_can_be(tmp_path, key, value):
    study = synthetic.write(tmp_path, models=1, variants=("torch-fp32",))
    (path,) = (tmp_path / "speed").rglob("torch-fp32.json")
    assert cells.read([path], [], study.manifests)
    data = json.loads(path.read_text())
    sample = data["protocols"]["standard"]["replicates"][0]["samples"][0]
    sample[key] = [*sample[key][1:], value] if key == "itl_s" else value
    path.write_text(json.dumps(data))
    with pytest.raises(UserError) as error:
        cells.read([path], [], study.manifests)
    assert str(error.value) == f"{path} has a time that none can be, {key} {value}: delete it and run again"
