"""A quality score of generated text, 1 to 5: computed from the text alone, by rules that a reader can follow.

It grades English continuations of short prompts. It cannot tell a true sentence from a false one (but for
arithmetic and the facts in TOPICS); it tells text from gibberish, loops, silence and digressions, which is what
a broken quantization produces. Each part runs from 1 to 5 as 1 + 4 x a share in [0, 1]:

coherence     is it language, and does it move on? The product of
              - word shape: share of words that could be English (a vowel, no long run of consonants, not too long);
              - glue: function words ("the", "is", "of") among the words, full marks from 25%;
                text of fewer than 8 words is excused;
              - novelty: distinct word trigrams among all trigrams, none below 40%, full marks from 85%;
              - clean: share of characters that ordinary text has, squared.
completeness  is the answer whole? 0.6 x its length (distinct words against those that the kind of prompt asks
              for: 1 for a sum, 4 for a fact or a greeting, 25 for a joke, 30 to explain or tell) + 0.4 x its end
              (1 for a finished sentence; 0.5 when the last one is cut off after a finished one; 0 otherwise).
              Times novelty, since repeating oneself adds nothing.
relevance     is it about the prompt? A sum: its result among the first numbers, or not. Otherwise the words of the
              topic (the study's prompts have lists; any other prompt, its own content words) that the text uses,
              full marks from 3 (from 1 for a fact).

score         the weighted mean, 0.4 coherence + 0.25 completeness + 0.35 relevance, but at most coherence + 1
              (gibberish earns nothing by its length or by echoing the prompt) and at most relevance + 2 (a fine
              text about something else is no answer). overall: the score, rounded.
"""

import operator
import re
from collections.abc import Sequence


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FUNCTION_WORDS = _set(
    "a about after all also am an and any are as at be because been before but by can could did do does for from had "
    "has have he her his how i if in into is it its just like made many may me more most my no not of on one only or "
    "other our out over she so some such than that the their them then there these they this through to too up us use "
    "used was we well were what when where which while who why will with would you your"
)
QUESTION_WORDS = _set("calculate describe explain name simple tell terms write short does work process")
# stems: a word counts when it begins with one of them
TOPICS = {
    "how are you": "hello hi hey fine good great well thank doing today okay glad nice",
    "capital of france": "paris",
    "quantum computing": "quantum qubit bit superposition entangle comput particle state mechanic classical algorithm",
    "story about a robot": "robot machine human once metal created named world friend built inventor program",
    "renewable energy": "energy renew solar wind power climate environment emission fossil sustain cost clean carbon",
    "photosynthesis": "photosynth plant light sun carbon dioxide oxygen water glucose chloroplast chlorophyll energy",
    "machine learning": "machine learn data algorithm model train artificial intelligen predict pattern comput",
    "joke": "joke why because walk bar knock said say ask laugh funny chicken man doctor",
    "neural network": "neural network neuron layer input output weight train data learn node brain connect",
}
KINDS = (
    (r"capital of|^who |^when |^where ", "fact"),
    (r"^(hello|hi|hey)\b|how are you", "greeting"),
    (r"\bjoke\b", "joke"),
)
NEEDED = {"sum": 1, "fact": 4, "greeting": 4, "joke": 25, "explain": 30}
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "×": operator.mul, "x": operator.mul}
SUM = re.compile(r"(\d+)\s*([-+*×x])\s*(\d+)")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
ORDINARY = re.compile(r"[\w\s.,;:!?'\"()\[\]*/+=%&$°–—‘’“”…-]")
END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s|$)")
WEIGHTS = {"coherence": 0.4, "completeness": 0.25, "relevance": 0.35}


def score(prompt: str, text: str) -> dict[str, float]:
    """coherence, completeness, relevance and score (floats from 1 to 5), and overall (the score, rounded).

    text: the continuation alone, without the prompt.
    """
    parts = {
        "coherence": 1 + 4 * coherence(prompt, text),
        "completeness": 1 + 4 * completeness(prompt, text),
        "relevance": 1 + 4 * relevance(prompt, text),
    }
    mean = sum(WEIGHTS[name] * value for name, value in parts.items())
    total = min(mean, parts["coherence"] + 1, parts["relevance"] + 2) if text.strip() else 1.0
    return {**parts, "score": total, "overall": int(total + 0.5)}


def kind(prompt: str) -> str:
    """What a prompt asks for: ``sum``, ``fact``, ``greeting``, ``joke`` or ``explain``."""
    if SUM.search(prompt):
        return "sum"
    return next((name for pattern, name in KINDS if re.search(pattern, prompt.strip().lower())), "explain")


def coherence(prompt: str, text: str) -> float:
    """Share in [0, 1]: word shape x glue x novelty x clean."""
    words = _words(text)
    if not words:
        # a bare number is all that a sum asks for
        return 1.0 if kind(prompt) == "sum" and NUMBER.search(text) else 0.0
    shape = sum(map(_plausible, words)) / len(words)
    glue = 1.0
    if len(words) >= 8:
        glue = min(1.0, sum(word in FUNCTION_WORDS for word in words) / len(words) / 0.25)
    visible = text.strip()
    clean = len(ORDINARY.findall(visible)) / len(visible)
    return shape * glue * novelty(text) * clean**2


def novelty(text: str) -> float:
    """Share in [0, 1]: how far the text moves on, by distinct trigrams of its words and numbers."""
    units = [unit.lower() for unit in re.findall(r"\w+(?:['’]\w+)*", text)]
    if len(units) < 6:
        # too short for trigrams: the same word twice in a row is a loop already
        return len(set(units)) / len(units) if units else 0.0
    trigrams = list(zip(units, units[1:], units[2:], strict=False))
    return _ramp(len(set(trigrams)) / len(trigrams), 0.4, 0.85)


def completeness(prompt: str, text: str) -> float:
    """Share in [0, 1]: (0.6 x length + 0.4 x end) x novelty."""
    asked = kind(prompt)
    numbers = NUMBER.findall(text)
    distinct = set(_words(text)) | set(numbers)
    if not distinct:
        return 0.0
    length = min(1.0, len(distinct) / NEEDED[asked])
    if asked == "sum":
        # a number is the whole answer, with a full stop or without
        return (0.6 * length + 0.4 * bool(numbers)) * novelty(text)
    ends = [match.end() for match in END.finditer(text)]
    end = 0.0 if not ends else 1.0 if not text[ends[-1] :].strip() else 0.5
    return (0.6 * length + 0.4 * end) * novelty(text)


def relevance(prompt: str, text: str) -> float:
    """Share in [0, 1]: the result of a sum, or the topic's words that the text uses."""
    if found := SUM.search(prompt):
        left, sign, right = found.groups()
        result = OPERATORS[sign](int(left), int(right))
        # a worked answer repeats the terms first; a long list of numbers is no answer
        numbers = [float(number.replace(",", "")) for number in NUMBER.findall(text)][:4]
        return 1.0 if result in numbers else 0.0
    words = set(_words(text))
    lowered = prompt.lower()
    listed = next((stems.split() for topic, stems in TOPICS.items() if topic in lowered), None)
    if listed is None:
        listed = [
            _stem(word)
            for word in _words(prompt)
            if len(word) > 2 and word not in FUNCTION_WORDS and word not in QUESTION_WORDS
        ]
    if not listed:
        return 1.0 if words else 0.0
    needed = 1 if kind(prompt) == "fact" else min(3, len(set(listed)))
    hits = sum(any(_about(word, stem) for word in words) for stem in set(listed))
    return min(1.0, hits / needed)


def _about(word: str, stem: str) -> bool:
    # "well" must not be found in "wellington", nor "hi" in "his"
    return word in (stem, stem + "s") if len(stem) <= 4 else word.startswith(stem)


def _stem(word: str) -> str:
    """The word without a common ending: enough to match a plural or a participle."""
    return re.sub(r"(ing|ed|es|s)$", "", word) if len(word) > 5 else word


def _words(text: str) -> Sequence[str]:
    return [word.lower() for word in WORD.findall(text)]


def _plausible(word: str) -> bool:
    """Could it be English by its letters alone?"""
    if word in FUNCTION_WORDS:
        return True
    if len(word) > 20 or not word.replace("'", "").replace("’", "").isascii():
        return False
    return bool(re.search(r"[aeiouy]", word)) and not re.search(r"[^aeiouy'’]{5}|[aeiou]{4}|(.)\1\1", word)


def _ramp(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
