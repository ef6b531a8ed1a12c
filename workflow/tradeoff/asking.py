"""How a prompt is put to a server in OpenAI's form, the same way as it was put when its answer was measured."""

from collections.abc import Mapping

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def path(prompting: Mapping) -> str:
    """The endpoint: a chat's where the prompt was a user's turn (evaluate's ``prompting``), else that of plain text."""
    return CHAT if prompting["before"] or prompting["after"] else TEXT


def body(prompting: Mapping, prompt: str, tokens: int) -> dict:
    """What to send there for a greedy answer of at most so many tokens."""
    said = {"messages": [{"role": "user", "content": prompt}]} if path(prompting) == CHAT else {"prompt": prompt}
    return {**said, "max_tokens": tokens, "temperature": 0}


def text(reply: Mapping) -> str:
    """The text of a whole answer."""
    choice = reply["choices"][0]
    return choice["message"]["content"] if "message" in choice else choice["text"]
