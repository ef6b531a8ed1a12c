"""What a rule works out for its command stands in the command."""

import re
from pathlib import Path

import pytest

RULES = sorted((Path(__file__).parents[2] / "workflow" / "rules").glob("*.smk"))
# a change of these runs a rule again, and its command needs none of them
REASONS = {"code", "libraries", "beside", "definitions"}


def unused(text: str) -> set[tuple[str, str]]:
    """(rule, parameter) of each parameter that no line of the rule's command takes."""
    found = set()
    for block in re.split(r"\n *rule ", text)[1:]:
        rule, (head, _, command) = block.partition(":")[0].strip(), block.partition("shell:")
        names = re.search(r"\n( *)params:\n(.*)", head, re.S)
        own = re.findall(rf"^{names[1]}    (\w+)=", names[2], re.M) if names else []
        found |= {(rule, name) for name in own if f"{{params.{name}" not in command and name not in REASONS}
    return found


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_parameter_reaches_the_command(path):
    assert unused(path.read_text()) == set()


def test_one_that_does_not_is_seen():
    text = RULES[[path.stem for path in RULES].index("report")].read_text()
    assert unused(text.replace("        {params.serving:q} \\\\\n", "")) == {("report", "serving")}
