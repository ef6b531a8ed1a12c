"""The rubric reaches both ends and separates what broken models write from what good ones write."""

import pytest

from workflow.tradeoff.evaluate.prompts import PROMPTS
from workflow.tradeoff.summarize import quality

EXPLAIN = "Explain quantum computing in simple terms."
GOOD = {
    "Hello, how are you?": " I'm fine, thank you. How are you doing today?",
    "What is the capital of France?": " The capital of France is Paris.",
    EXPLAIN: (
        " Quantum computing uses qubits, which can be zero and one at the same time. This property, called "
        "superposition, lets a quantum computer explore many states at once and solve some problems faster than a "
        "classical machine."
    ),
    "Write a short story about a robot.": (
        "\n\nOnce there was a robot named Max. He lived in a small house of metal, and he loved to help the people of "
        "the village with their work. One day a human friend asked him to build a bridge, and so they did."
    ),
    "Calculate 15 * 23 =": " 345",
    "What are the benefits of renewable energy?": (
        " Renewable energy, such as solar and wind power, is clean and does not run out. It lowers emissions, it "
        "makes a country less dependent on fossil fuels, and in many places it costs less than coal."
    ),
    "Describe the process of photosynthesis.": (
        " In photosynthesis a plant takes in carbon dioxide and water. With the energy of light, its chlorophyll "
        "turns them into glucose, which feeds the plant, and into oxygen, which goes back into the air."
    ),
    "What is machine learning?": (
        " Machine learning is a way to make a computer learn from data. Instead of following rules that someone "
        "wrote, the model finds patterns in examples, and it uses them to predict what it has not seen before."
    ),
    "Tell me a joke.": (
        " Why did the chicken cross the road? Because it wanted to get to the other side, said the man, and "
        "everybody at the bar began to laugh out loud for a long while."
    ),
    "How does a neural network work?": (
        " A neural network is made of layers of neurons. Each neuron multiplies its inputs by weights, adds them "
        "up, and passes the output on. During training the weights are changed until the answers are right."
    ),
}  # fmt: skip
BROKEN = {
    "empty": "",
    "blank": " \n\n ",
    "letters": " xqzt brrlk 9fj wmmn qqq zxcv hjkl pqrst vbnm trwqp lkjhg mnbvc fdsrt",
    "symbols": "\ufffd\ufffd @@@ ### {{{ }}} <<>> ||| ~~~",
    "word salad": " table green run sky metal often window seven carpet jump yellow horse pencil lamp",
    "one word": " quantum" * 12,
    "sentence": " I am not sure." * 8,
    "paragraph": " Quantum computing is a way to use a quantum state." * 6,
}
OFF_TOPIC = (
    " The best way to cook pasta is to boil plenty of salted water, add the noodles, and stir them now and "
    "then until they are soft. Serve it with a sauce of tomatoes, garlic and olive oil, and a little cheese "
    "on top."
)


def test_every_prompt_of_the_study_can_reach_five():
    assert tuple(GOOD) == PROMPTS
    assert {prompt: quality.score(prompt, text)["overall"] for prompt, text in GOOD.items()} == dict.fromkeys(
        PROMPTS, 5
    )


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_broken_text_stays_at_the_bottom(name, prompt):
    assert quality.score(prompt, BROKEN[name])["overall"] <= 2


def test_empty_output_is_one_in_every_part():
    assert set(quality.score(EXPLAIN, "").values()) == {1}


def test_a_fine_text_about_something_else_is_no_answer():
    result = quality.score(EXPLAIN, OFF_TOPIC)
    assert result["coherence"] > 4.5 and result["relevance"] < 2 and result["overall"] <= 3


def test_a_sum_is_checked():
    right, wrong = (quality.score("Calculate 15 * 23 =", f" {number}") for number in (345, 315))
    assert right["overall"] == 5 and right["relevance"] == 5
    assert wrong["overall"] <= 3 and wrong["relevance"] == 1
    assert quality.score("Calculate 15 * 23 =", " 15 * 23 = 345.")["relevance"] == 5
    assert quality.score("Calculate 15 * 23 =", " 1 2 3 4 5 345")["relevance"] == 1
    assert quality.score("What is 1200 + 34?", " It is 1,234.")["relevance"] == 5
    assert quality.score("7 - 9 =", " 2")["relevance"] == 1


def test_a_cut_off_answer_is_less_complete_than_a_finished_one():
    whole = GOOD[EXPLAIN]
    cut = whole[: whole.index("faster")]
    assert quality.completeness(EXPLAIN, cut) < quality.completeness(EXPLAIN, whole)
    assert quality.completeness(EXPLAIN, " It uses") < quality.completeness(EXPLAIN, cut)


def test_repetition_costs_more_the_more_there_is():
    sentence = " A qubit may be in two states at once, and so it can carry more than a bit."
    values = [quality.score(EXPLAIN, GOOD[EXPLAIN] + sentence * times)["score"] for times in (1, 3, 8)]
    assert values == sorted(values, reverse=True) and values[0] - values[2] > 1


def test_a_prompt_that_is_not_in_the_study_is_judged_by_its_own_words():
    prompt = "Describe the history of bicycles and their inventors."
    about = " The history of bicycles began with two wheels and no pedals; their inventors were German and Scottish."
    assert quality.relevance(prompt, about) == 1
    assert quality.relevance(prompt, OFF_TOPIC) == 0


@pytest.mark.parametrize("prompt", [*PROMPTS, "", "?", "1 + 1"])
@pytest.mark.parametrize("text", [*BROKEN.values(), OFF_TOPIC, "12", "é", "a" * 5000, "The. The. The."])
def test_scores_stay_on_the_scale(prompt, text):
    result = quality.score(prompt, text)
    assert all(1 <= value <= 5 for value in result.values())
    assert isinstance(result["overall"], int)
