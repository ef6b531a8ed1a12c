"""Greedy answers of a server beside those that were measured offline."""

import json
from collections.abc import Mapping, Sequence
from urllib import error, request

from workflow.tradeoff import asking

TIMEOUT_S = 120


def answer(address: str, prompting: Mapping, prompt: str, tokens: int) -> tuple[str, str | None]:
    """(text, None), or ("", what went wrong in words)."""
    # llama.cpp's word for taking nothing over from an earlier prompt; others ignore it
    body = {**asking.body(prompting, prompt, tokens), "model": "served", "cache_prompt": False}
    asked = request.Request(
        address + asking.path(prompting), json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with request.urlopen(asked, timeout=TIMEOUT_S) as reply:
            return asking.text(json.load(reply)), None
    except (OSError, error.HTTPError, ValueError, KeyError, TypeError, IndexError) as fault:
        return "", f"{type(fault).__name__}: {fault}"


def compare(address: str, prompting: Mapping, generated: Sequence[Mapping]) -> list[dict]:
    """One entry a measured answer (evaluate's ``generated``): prompt, measured and served text, ``same``, error."""
    found = []
    for example in generated:
        text, fault = answer(address, prompting, example["prompt"], len(example["token_ids"]))
        same = fault is None and text.strip() == example["text"].strip()
        told = {"prompt": example["prompt"], "measured": example["text"], "served": text, "same": same, "error": fault}
        found.append(told)
    return found
