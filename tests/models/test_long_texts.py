"""The ends of a text have the ids that they have within the whole text, and little is read to know them."""

import subprocess
import sys
from typing import Any

import pytest
from helpers.bases import make_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from fullbake.models.long_texts import EndsOfText

KINDS = ("bert", "mpnet", "roberta", "modernbert", "albert", "xlm-roberta", "deberta-v3")


def make_unigram(*, split: bool) -> Tokenizer:
    """Return a tokenizer that can split runs of dots and of a letter in many equally likely ways."""
    pieces = [("<unk>", 0.0), ("▁", -3.0), (".", -2.0), ("...", -4.0), (".....", -5.5), ("a", -3.0), ("aa", -5.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("aaa", -6.0), ("▁a", -4.0), ("b", -4.0)], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    return tokenizer


def make_byte_pairs() -> Tokenizer:
    """Return byte pairs whose merges depend on each other along a run of letters."""
    merges = [("b", "a"), ("a", "b"), ("ab", "ab"), ("a", "a"), ("aa", "aa"), (".", "."), ("..", "."), ("..", "..")]
    vocab = ["<unk>", " ", "a", "b", "c", ".", *dict.fromkeys("".join(pair) for pair in merges)]
    return Tokenizer(models.BPE({piece: place for place, piece in enumerate(vocab)}, merges, unk_token="<unk>"))


def make_with_added_tokens() -> Tokenizer:
    """Return a tokenizer with added tokens that hold a space, or take the space next to them."""
    tokenizer = make_tokenizer("bert").backend_tokenizer
    tokenizer.add_tokens([AddedToken("a b"), AddedToken("<x>", rstrip=True), AddedToken("<y>", lstrip=True)])
    return tokenizer


def make_without_punctuation_splits() -> Tokenizer:
    tokenizer = make_tokenizer("bert").backend_tokenizer
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), pre_tokenizers.WhitespaceSplit()
    return tokenizer


TOKENIZERS: dict[str, Tokenizer] = {kind: make_tokenizer(kind).backend_tokenizer for kind in KINDS} | {
    "unigram by words": make_unigram(split=True),
    "unigram whole": make_unigram(split=False),
    "pairs without words": make_byte_pairs(),
    "added tokens": make_with_added_tokens(),
    "plain words": make_without_punctuation_splits(),
}
FRAGMENTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "good ",
            ".",
            "a",
            "ab",
            "aba",
            " ",
            "\n",
            "\r\n ",
            "\x1c",
            "\x1f",
            "0",
            "é",
            "e\u0301",
            "漢",
            "ก",
            "x9",
            "a b",
            "<x> ",
            " <y>",
        ]
    ),
    st.sampled_from(["the film is not bad, ", "never. ", "[SEP]", "<mask>", "\u200b", "'s", "``", "\ufdfa", "Σς"]),
)
TEXTS = st.lists(st.tuples(FRAGMENTS, st.integers(1, 600)), max_size=8).map(
    lambda runs: "".join(fragment * times for fragment, times in runs)
)


def with_small_pieces(tokenizer: Tokenizer) -> EndsOfText:
    """Treat the short texts of these tests as long ones."""
    return EndsOfText(tokenizer, smallest_piece=64, counted_piece=512)


def whole_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of the whole text: what the ends are compared with."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ends_equal_those_of_the_whole_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    read = with_small_pieces(tokenizer)

    @given(TEXTS, st.integers(0, 40), st.integers(0, 40))
    @settings(max_examples=150)
    @example("0" * 75 + "\x1f" * 156 + "0" * 26, 1, 0)  # the normalizer joins this to one word of 101 letters
    @example("0" * 26 + "\x1f" * 156 + "0" * 75, 0, 1)
    @example("0" * 75 + "\u200b" * 2_000 + "0" * 26, 1, 1)
    @example("e\u0301" * 300, 20, 20)
    def check(text: str, first: int, last: int) -> None:
        ids = whole_ids(tokenizer, text)
        assert read.first(text, first) == ids[:first]
        assert read.last(text, last) == ids[max(0, len(ids) - last) :]
        kept = ids[:first] + ids[len(ids) - last :] if len(ids) > first + last else ids
        assert read.ends(text, first, last) == kept

    check()


@pytest.mark.parametrize("name", KINDS)
def test_count_is_exact_but_for_endless_words(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    read = with_small_pieces(tokenizer)
    for text in ("", "good", "the film is not bad, " * 300, "never " * 999, "a" * 300 + " good" * 300):
        assert read.count(text) == len(whole_ids(tokenizer, text))
    dots = "." * 5000
    assert read.count(dots) == pytest.approx(len(whole_ids(tokenizer, dots)), abs=2 * (1 + 5000 // 512))


class CountingTokenizer:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.characters = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self.tokenizer.encode_batch_fast(texts, **options)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("text", [".", "a", " ", "\n", " \r\n\t", "good film "])
def test_little_of_a_long_text_is_read(name: str, text: str) -> None:
    counting: Any = CountingTokenizer(TOKENIZERS[name])
    EndsOfText(counting).ends(text * (3_000_000 // len(text)), 128, 382)
    assert 0 < counting.characters < 300_000


def test_unigram_split_of_a_run_depends_on_its_length() -> None:
    """So a cut within a word must be proved right: the first ids of two runs of dots can differ."""
    ids = {tuple(whole_ids(TOKENIZERS["unigram whole"], "." * count)[:2]) for count in range(100, 130)}
    assert len(ids) > 1


MEASURED = """
import resource
from pathlib import Path
from fullbake.models.tokenizer import load_tokenizer
from fullbake.models.encoding import tokenize
tokenizer = load_tokenizer(Path({base!r}))
text = "." * 10_000_000
tokenize(tokenizer, ["good"], max_length=512, truncation="head")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for truncation in ("head", "tail", "head+tail"):
    tokenize(tokenizer, [text], max_length=512, truncation=truncation)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux alone")
def test_ten_million_dots_need_little_memory(bases) -> None:
    code = MEASURED.format(base=str(bases("bert")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
