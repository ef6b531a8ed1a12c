"""Loads: the operating points that a cell is measured at, each so many sequences at once, prompt tokens and new tokens.

The standard load is one user: one sequence, ``measure.prompt_tokens`` and ``measure.new_tokens``. It is always
measured; ``measure.loads`` names further ones:

    further({"prompt_tokens": 32, "new_tokens": 20, "loads": [{"sequences": 4}]})    [Load("4x32+20", 4, 32, 20)]
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from workflow.tradeoff.errors import UserError

STANDARD = "standard"  # the name of the standard load
POINT = ("sequences", "prompt_tokens", "new_tokens")


@dataclass(frozen=True)
class Load:
    """``sequences`` at once, each of ``prompt_tokens``, that make ``new_tokens`` each."""

    name: str
    sequences: int
    prompt_tokens: int
    new_tokens: int

    @property
    def point(self) -> dict[str, int]:
        """The load without its name."""
        return {key: getattr(self, key) for key in POINT}

    @property
    def words(self) -> str:
        """For people: ``4 sequences at once, 32 prompt and 20 new tokens``."""
        many = "1 sequence" if self.sequences == 1 else f"{self.sequences} sequences at once"
        return f"{many}, {self.prompt_tokens} prompt and {self.new_tokens} new tokens"


def standard(measure: Mapping) -> Load:
    """The standard load of a config's ``measure``."""
    return Load(STANDARD, 1, measure["prompt_tokens"], measure["new_tokens"])


def further(measure: Mapping) -> list[Load]:
    """The loads of ``measure.loads``, what they leave out as in the standard load, which is itself left out.

    Raises UserError for two loads of one name, or at one point.
    """
    first = standard(measure)
    names, points = {STANDARD: first.point}, {}
    found = []
    for number, given in enumerate(measure.get("loads") or []):
        point = first.point | {key: given[key] for key in POINT if key in given}
        name = given.get("name") or "{sequences}x{prompt_tokens}+{new_tokens}".format(**point)
        where = f"config key measure.loads.{number}"
        if tuple(point.values()) in points:
            raise UserError(f"{where}: {point} stands there twice: remove one")
        points[tuple(point.values())] = name
        if point == first.point:
            continue
        if name in names:
            raise UserError(f"{where}.name: {name} is the name of another load: give this one its own")
        names[name] = point
        found.append(Load(name, **point))
    return found


def measured(measure: Mapping) -> list[Load]:
    """Every load that a study measures, the standard one first."""
    return [standard(measure), *further(measure)]


def find(asked: str | Mapping, known: Iterable[Load], where: str) -> Load:
    """The load that a scenario asks for, by name or by its point; what the point leaves out is as in the standard load.

    known: those that were, or will be, measured. where: who asks, for the message. Raises UserError for one that is
    not among them.
    """
    known = list(known)
    first = next(load for load in known if load.name == STANDARD)
    for load in known:
        if load.name == asked or (isinstance(asked, Mapping) and load.point == first.point | dict(asked)):
            return load
    names = "; ".join(f"{load.name} ({load.words})" for load in known)
    said = asked if isinstance(asked, str) else json.dumps(dict(asked))
    raise UserError(f"{where}: the load {said} is not measured: add it to measure.loads, or name one of these: {names}")


def dumps(loads: Iterable[Load]) -> str:
    """Loads as a flag's JSON."""
    return json.dumps([asdict(load) for load in loads])


def parse(text: str) -> list[Load]:
    """The loads of ``dumps``."""
    return [Load(**entry) for entry in json.loads(text)]
