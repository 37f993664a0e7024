"""Parity: the ends of a text have the ids that they have within the whole of it."""

import subprocess
import sys

import pytest
from helpers.bases import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from fullbake.models import long_texts
from fullbake.models.long_texts import EndsOfText

KINDS = ("bert", "mpnet", "roberta", "modernbert", "albert", "xlm-roberta", "deberta-v3")


def unigram(*, split: bool) -> Tokenizer:
    """Runs of dots and of a letter can be parted in many ways that are equally likely."""
    pieces = [("<unk>", 0.0), ("▁", -3.0), (".", -2.0), ("...", -4.0), (".....", -5.5), ("a", -3.0), ("aa", -5.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("aaa", -6.0), ("▁a", -4.0), ("b", -4.0)], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    return tokenizer


def chained_pairs() -> Tokenizer:
    """Byte pairs whose merges hang on each other along a run of letters."""
    merges = [("b", "a"), ("a", "b"), ("ab", "ab"), ("a", "a"), ("aa", "aa"), (".", "."), ("..", "."), ("..", "..")]
    vocab = ["<unk>", " ", "a", "b", "c", ".", *dict.fromkeys("".join(pair) for pair in merges)]
    return Tokenizer(models.BPE({piece: place for place, piece in enumerate(vocab)}, merges, unk_token="<unk>"))


def with_added() -> Tokenizer:
    """Added tokens that hold a space, or take the space beside them."""
    tokenizer = make_tokenizer("bert").backend_tokenizer
    tokenizer.add_tokens([AddedToken("a b"), AddedToken("<x>", rstrip=True), AddedToken("<y>", lstrip=True)])
    return tokenizer


def words_of_any_length() -> Tokenizer:
    tokenizer = make_tokenizer("bert").backend_tokenizer
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), pre_tokenizers.WhitespaceSplit()
    return tokenizer


TOKENIZERS: dict[str, Tokenizer] = {kind: make_tokenizer(kind).backend_tokenizer for kind in KINDS} | {
    "unigram by words": unigram(split=True),
    "unigram whole": unigram(split=False),
    "pairs without words": chained_pairs(),
    "added tokens": with_added(),
    "plain words": words_of_any_length(),
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


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the short texts of these tests are long ones."""
    monkeypatch.setattr(long_texts, "_LEAST_PIECE", 64)
    monkeypatch.setattr(long_texts, "LONG_TEXT_CHARACTERS", 512)


def whole_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ends_are_those_of_the_whole_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    read = EndsOfText(tokenizer)

    @given(TEXTS, st.integers(0, 40), st.integers(0, 40))
    @settings(max_examples=150)
    def check(text: str, first: int, last: int) -> None:
        ids = whole_ids(tokenizer, text)
        assert read.first(text, first) == ids[:first]
        assert read.last(text, last) == ids[max(0, len(ids) - last) :]
        kept = ids[:first] + ids[len(ids) - last :] if len(ids) > first + last else ids
        assert read.ends(text, first, last) == kept

    check()


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", KINDS)
def test_all_ids_are_counted(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    read = EndsOfText(tokenizer)
    for text in ("", "good", "the film is not bad, " * 300, "never " * 999, "a" * 300 + " good" * 300):
        assert read.count(text) == len(whole_ids(tokenizer, text))
    dots = "." * 5000
    assert read.count(dots) == pytest.approx(len(whole_ids(tokenizer, dots)), abs=2 * (1 + 5000 // 512))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("text", [".", "a", " ", "good film "])
def test_little_is_read_of_a_long_text(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, seen = EndsOfText(TOKENIZERS[name]), []
    encode = EndsOfText._ids

    def counting(self, pieces):
        seen.append(sum(map(len, pieces)))
        return encode(self, pieces)

    monkeypatch.setattr(EndsOfText, "_ids", counting)
    read.ends(text * (3_000_000 // len(text)), 128, 382)
    assert sum(seen) < 300_000


def test_how_unigram_parts_a_run_may_hang_on_its_end() -> None:
    """Why a cut within a word has to be proved: the first ids of two runs of dots differ though all dots are alike."""
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
def test_ten_million_dots_take_little_memory(bases) -> None:
    code = MEASURED.format(base=str(bases("bert")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
