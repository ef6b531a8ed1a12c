"""config/loads.yaml: its plan on any machine, and loads that reach the measurement; without any, nothing is told."""

import pytest
import yaml

from tests import studies
from workflow.tradeoff import loads
from workflow.tradeoff.run import config


@pytest.fixture(scope="module")
def unread(tmp_path_factory) -> studies.Study:
    folder = tmp_path_factory.mktemp("loads") / "checkout"
    studies.checkout(folder)
    return studies.Study(folder)


def test_the_study_has_the_loads_of_one_user_a_long_prompt_and_batches():
    study = config.load(str(studies.REPOSITORY / "config" / "loads.yaml"))
    points = [(load.sequences, load.prompt_tokens) for load in loads.measured(study["measure"])]
    assert points == [(1, 32), (1, 1024), (4, 32), (16, 256)]


def test_its_plan_measures_each_cell_at_every_load(unread):
    done = unread.snakemake("--dry-run", "--nocolor", "--printshellcmds", configfile="config/loads.yaml")
    listed = yaml.safe_load((unread.folder / "config" / "loads.yaml").read_text())["variants"]
    commands = done.stdout.split("python -m workflow.tradeoff.measure")[1:]
    assert len(commands) == len(listed)
    for command in commands:
        command = command.partition("--device")[0]
        assert command.count('"sequences": ') == 3 and '"name": "batch", "sequences": 16' in command
    for name in ("figures/loads.svg", "tables/loads.csv", "tables/crossings.csv"):
        assert f"results/loads/{name}" in done.stdout
