"""Configs that an earlier version took are taken still, or end in one line that says what has become of the key."""

import copy

import pytest
import yaml

from tests.unit.run.test_config import filled
from workflow.tradeoff.errors import UserError
from workflow.tradeoff.run import config, renamed

EARLIER = {"replicates": 2, "samples": 1, "rounds": 1, "noisy_share": 0.2, "new_tokens": 6}


def test_a_config_of_an_earlier_version_is_read_under_todays_names():
    study = filled()
    study["measure"] = dict(EARLIER)
    lines = renamed.renew(study)
    assert study["measure"] == {"pairs": 2, "turns": 1, "new_tokens": 6}
    assert len(lines) == 4 and all(
        any(f"measure.{key} " in line for line in lines) for key in EARLIER if "_t" not in key
    )
    config.check_schema(study)
    assert renamed.renew(study) == []


def test_a_config_of_today_is_left_alone():
    study = filled()
    before = copy.deepcopy(study)
    assert renamed.renew(study) == [] and study == before


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"measure": {"replicates": 2, "pairs": 3}}, ["measure.replicates", "measure.pairs", "remove it"]),
        ({"quantize": {"per_channel": True}}, ["quantize is gone", "define", "per_channel"]),
    ],
)
def test_what_has_no_translation_is_one_line(study, words):
    with pytest.raises(UserError) as refused:
        renamed.renew(study)
    assert "\n" not in str(refused.value) and all(word in str(refused.value) for word in words)


def test_a_file_of_an_earlier_version_is_a_study(tmp_path):
    study = filled()
    study["measure"] = dict(EARLIER)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(study))
    assert config.load(str(tmp_path / "c.yaml"))["measure"]["pairs"] == 2
