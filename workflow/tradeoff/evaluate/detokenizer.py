"""The text transform of lm-evaluation-harness's ``wikitext`` task (version 2.0): WikiText's spaced-out marks undone.

A port of ``lm_eval/tasks/wikitext/preprocess_wikitext.py`` (EleutherAI, MIT), oddities kept: the word perplexity is
only comparable when each of them is. ``tests/unit/test_conventions.py`` compares it with the harness itself.
"""

import re

REPLACED_FIRST = ("s '", "s'")
SEPARATORS = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."))
MARKS = tuple((f" {mark} ", f"{mark} ") for mark in ":;.!?,")
PAIRS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
        (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
        (r"{\s*([^}]*?)\s*}", r"{\1}"),
        (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
        (r"'\s*([^']*?)\s*'", r"'\1'"),
    )
)
LAST = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def detokenize(page: str) -> str:
    """The page as the model reads it."""
    page = page.replace(*REPLACED_FIRST)
    # the harness's pattern has its slashes inside the expression
    page = re.sub(r"/' [0-9]/", r"/'[0-9]/", page)
    for old, new in SEPARATORS + MARKS:
        page = page.replace(old, new)
    for pattern, replacement in PAIRS:
        page = pattern.sub(replacement, page)
    for old, new in LAST:
        page = page.replace(old, new)
    return page


def words(page: str) -> int:
    """Words of the page before it is detokenized, counted as the harness does (a margin of blanks counts as one)."""
    return len(re.split(r"\s+", page))
