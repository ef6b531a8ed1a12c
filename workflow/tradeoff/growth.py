"""Whether a decode step costs what a whole pass does, by times at two lengths of text. Pure."""

import math
from collections.abc import Sequence

# a whole pass must grow at least so much with the text before a step that grows likewise tells anything
PASS_GROWTH_LEAST = 2.0
STEP_OF_PASS = 2 / 3


def costs_a_pass(step_s: Sequence[float], pass_s: Sequence[float]) -> bool:
    """Whether the steps after a short and a long text, in seconds, cost what the passes over these texts do.

    Seen after the long text: the step takes at least two thirds of its pass, and from the short text to the long one it
    grew by more than the square root of what the pass grew by. Where the pass hardly grows, as on a GPU that waits for
    launches, the times tell nothing.
    """
    pass_growth, step_growth = pass_s[1] / pass_s[0], step_s[1] / step_s[0]
    as_long = step_s[1] >= STEP_OF_PASS * pass_s[1]
    return pass_growth >= PASS_GROWTH_LEAST and as_long and step_growth > math.sqrt(pass_growth)
