"""How sharp a speedup is: what the measuring stops at, and what the tables say. Alone, so that no other statistic's
change measures anything again.
"""

import math

import numpy as np


def half_width(medians: np.ndarray, first: int, level: float = 0.95) -> np.ndarray:
    """Half the interval of the mean of ``medians`` (..., n), n > 1: more of them were taken while it was too wide.

    A plain t interval covers too little when its own width said when to stop: it stops where the scatter looks small by
    chance. The width that the scatter of the ``first`` medians alone gives, with their degrees of freedom, covers as
    promised whatever number it asks for (C. Stein, "A two-sample test for a linear hypothesis whose power is
    independent of the variance", Ann. Math. Stat. 1945). The wider of the two is given, so that later medians that
    scatter more are not passed over; before ``first`` are there, the two are the same.
    """
    medians = np.asarray(medians, dtype=np.float64)
    count = medians.shape[-1]
    widths = [
        t_quantile(level, known - 1) * medians[..., :known].std(axis=-1, ddof=1) / math.sqrt(count)
        for known in {min(first, count), count}
        if known > 1
    ]
    return np.maximum.reduce(widths)


def t_quantile(level: float, degrees: int) -> float:
    """Student's t between whose negative and itself ``level`` lies."""
    from scipy.special import stdtrit  # a tenth of a second, which modules that only carry intervals need not spend

    return float(stdtrit(degrees, (1 + level) / 2))
