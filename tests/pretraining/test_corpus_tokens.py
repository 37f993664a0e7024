"""Documents to tokens: ids as the tokenizer gives them, and what counts as a word."""

import numpy as np
import pytest
from helpers.bases import FAMILIES
from helpers.corpora import load_tokenizer, make_documents, reading
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from fullbake.core.errors import Fault
from fullbake.pretraining import corpus_tokens
from fullbake.pretraining.corpus_tokens import (
    LONGEST_WORD,
    CorpusTokenizer,
    TokenizedDocuments,
    open_tokenizers,
    tokenize_documents,
)
from fullbake.pretraining.documents import Document, split_sentences


def documents(texts: list[str]) -> list[Document]:
    return [Document(str(number), tuple(text.split("\n"))) for number, text in enumerate(texts)]


def words_of(text: str, how: CorpusTokenizer) -> list[list[str]]:
    """The tokens of each word of one text."""
    (found,) = tokenize_documents(documents([text]), how)
    backend = Tokenizer.from_str(how.tokenizer)
    tokens = [str(backend.id_to_token(int(token))) for token in found.input_ids]
    edges = np.flatnonzero(found.word_starts).tolist()
    return [tokens[start:end] for start, end in zip(edges, [*edges[1:], len(tokens)], strict=True)]


def metaspace(characters: str) -> CorpusTokenizer:
    """A tokenizer that splits at white space alone and knows these characters: XLM-R's way."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((character, -5.0) for character in characters)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return CorpusTokenizer(backend.to_str(), 0, "en")


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_the_tokenizers_own(family: str) -> None:
    tokenizer = load_tokenizer(family)
    texts = [*make_documents(20), "One.\nTwo! three", "Ünïcödé (x)."]
    expected = [
        tokenizer.backend_tokenizer.encode(sentence, add_special_tokens=False).ids
        for text in texts
        for paragraph in text.split("\n")
        for sentence in split_sentences(paragraph)
    ]
    (found,) = tokenize_documents(documents(texts), reading(tokenizer))
    assert np.split(found.input_ids, found.lengths.cumsum()[:-1])[5].tolist() == expected[5]
    assert found.input_ids.tolist() == [token for ids in expected for token in ids]
    assert found.lengths.tolist() == [len(ids) for ids in expected]
    assert found.sentences.sum() == len(expected)
    assert found.unknown == sum(ids.count(tokenizer.unk_token_id) for ids in expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_is_what_the_tokenizer_takes_for_one(family: str) -> None:
    words = words_of("The moviezz was really bad", reading(load_tokenizer(family)))
    assert len(words) == 5
    assert max(map(len, words)) > 1


@pytest.mark.parametrize("text", ["这间酒店很好", "ฉันชอบ", "私はすき"])
def test_each_character_is_a_word_where_there_are_no_spaces(text: str) -> None:
    assert len(text) < LONGEST_WORD
    words = words_of(text, metaspace(text))
    assert [word[-1] for word in words] == list(text)


def test_a_latin_word_among_them_stays_one() -> None:
    assert words_of("我good酒", metaspace("我good酒")) == [["▁", "我"], ["g", "o", "o", "d"], ["酒"]]


def test_the_bytes_of_a_character_stay_together() -> None:
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = words_of("很好吗", CorpusTokenizer(backend.to_str(), None, "zh"))
    assert [len(word) for word in words] == [3, 3, 3]


def test_what_is_longer_than_a_word_is_none() -> None:
    how = metaspace("abcdefghijklmnop")
    assert len(words_of("abcdefghi", how)) == 1
    assert {len(word) for word in words_of("abcdefghijklmnop", how)} == {1}


def test_texts_without_a_token_are_left_out() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.normalizer = normalizers.Replace("x", "")
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece()
    (found,) = tokenize_documents(documents(["x", "b.\nx", "xx"]), CorpusTokenizer(backend.to_str(), None, "en"))
    assert found.sentences.tolist() == [1]
    assert len(found.hashes) == 1
    (nothing,) = tokenize_documents([], CorpusTokenizer(backend.to_str(), None, "en"))
    assert not len(nothing.input_ids)


def test_few_sentences_go_through_the_tokenizer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, how = make_documents(30), reading(load_tokenizer("bert"))
    whole = _joined(list(tokenize_documents(documents(texts), how)))
    monkeypatch.setattr(corpus_tokens, "CHUNK_CHARACTERS", 100)
    cut = list(tokenize_documents(documents(texts), how))
    assert len(cut) > 10
    assert _joined(cut) == whole
    monkeypatch.setattr(corpus_tokens, "CHUNK_CHARACTERS", 10**9)
    (one,) = tokenize_documents(documents([" ".join(texts)]), how)
    monkeypatch.setattr(corpus_tokens, "CHUNK_CHARACTERS", 100)
    (little,) = tokenize_documents(documents([" ".join(texts)]), how)
    assert _joined([one]) == _joined([little])


def test_a_process_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    how = CorpusTokenizer("no tokenizer", None, "en")
    with open_tokenizers(how, 2) as tokenized, pytest.raises(Fault, match="a process that tokenizes has ended"):
        list(tokenized(documents(["a"])))


def test_processes_start_only_where_there_is_much_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_tokens, "ProcessPoolExecutor", _no_pool)
    how = reading(load_tokenizer("bert"))
    with open_tokenizers(how, None) as tokenized:
        assert len(list(tokenized(documents(["little"])))) == 1
    monkeypatch.setattr(corpus_tokens, "PARALLEL_CHUNKS", 5)
    monkeypatch.setattr(corpus_tokens.runtime, "processors", lambda: 2)
    with open_tokenizers(how, None) as tokenized, pytest.raises(AssertionError, match="started"):
        tokenized(documents(["much to do"]))


def _no_pool(*_: object) -> None:
    raise AssertionError("started")


def _joined(parts: list[TokenizedDocuments]) -> list[list[int]]:
    names = ("input_ids", "word_starts", "hashes", "lengths", "sentences")
    return [np.concatenate([getattr(part, name) for part in parts]).tolist() for name in names]
