"""No probe reaches beyond a model's context, however short that is."""

import pytest
import torch

from workflow.tradeoff.evaluate import generation
from workflow.tradeoff.measure import sample, timed


class Short:
    """An engine that counts tokens and refuses one too many, as a table of learned positions does."""

    device = torch.device("cpu")

    def __init__(self, context):
        self.context, self.length = context, 0

    def prefill(self, ids):
        self.length = 0
        return self.decode(ids)

    def decode(self, ids):
        self.length += ids.shape[1]
        if self.length > self.context:
            raise IndexError("index out of range in self")
        return ids[:, :1]

    def generate(self, ids, new_tokens):
        timed.take(self, ids, new_tokens)

    def synchronize(self):
        pass


@pytest.mark.parametrize("context", [8, 16, 24, 64, 4096])
@pytest.mark.parametrize("prompt", [1, 8, 20])
def test_the_cache_s_growth(context, prompt):
    found = timed.cache_growth(Short(context), torch.ones(1, prompt, dtype=torch.int64))
    assert len(found["step_s"]) == 2 and max(found["lengths"]) < context


@pytest.mark.parametrize(("context", "taken"), [(24, 0), (28, 0), (29, 2), (512, 2)])
def test_the_study_s_protocol(context, taken):
    assert len(sample.study(Short(context), torch.ones(1, 19, dtype=torch.int64), runs=2)) == taken


def test_prompts_that_no_setting_makes_fit_are_left_out():
    prompts = [[1] * 10, [1] * 30, [1] * 23]
    assert generation.fitting(prompts, 1, 24) == {0: prompts[0], 2: prompts[2]}
    with pytest.raises(Exception, match=r"23 prompt tokens and 2 new ones exceed the model's context of 24"):
        generation.fitting(prompts, 2, 24)
