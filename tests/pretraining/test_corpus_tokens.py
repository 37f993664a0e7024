"""Documents become the tokenizer's own ids, and word starts are right in every script."""

from collections.abc import Iterable
from multiprocessing import active_children

import numpy as np
import pytest
from helpers.bases import FAMILIES
from helpers.corpora import load_tokenizer, make_documents
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from fullbake.core.errors import Fault
from fullbake.pretraining.corpus_tokens import (
    LONGEST_WORD,
    CorpusTokenizer,
    TokenizedDocuments,
    open_tokenizers,
    tokenize_documents,
)
from fullbake.pretraining.documents import Document, split_sentences
from fullbake.pretraining.forgetting import corpus_tokenizer_of


def documents(texts: list[str]) -> list[Document]:
    return [Document(str(number), tuple(text.split("\n"))) for number, text in enumerate(texts)]


def words_of(text: str, corpus_tokenizer: CorpusTokenizer) -> list[list[str]]:
    """Return the tokens of each word of one text."""
    (found,) = tokenize_documents(documents([text]), corpus_tokenizer)
    backend = Tokenizer.from_str(corpus_tokenizer.tokenizer)
    tokens = [str(backend.id_to_token(int(token))) for token in found.input_ids]
    edges = np.flatnonzero(found.word_starts).tolist()
    return [tokens[start:end] for start, end in zip(edges, [*edges[1:], len(tokens)], strict=True)]


def metaspace(characters: str) -> CorpusTokenizer:
    """Return a tokenizer that splits only at white space and knows these characters, as XLM-R does."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((character, -5.0) for character in characters)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return CorpusTokenizer(backend.to_str(), 0, "en")


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_equal_those_of_the_tokenizer(family: str) -> None:
    tokenizer = load_tokenizer(family)
    texts = [*make_documents(20), "One.\nTwo! three", "Ünïcödé (x)."]
    expected = [
        tokenizer.backend_tokenizer.encode(sentence, add_special_tokens=False).ids
        for text in texts
        for paragraph in text.split("\n")
        for sentence in split_sentences(paragraph)
    ]
    (found,) = tokenize_documents(documents(texts), corpus_tokenizer_of(tokenizer))
    assert np.split(found.input_ids, found.lengths.cumsum()[:-1])[5].tolist() == expected[5]
    assert found.input_ids.tolist() == [token for ids in expected for token in ids]
    assert found.lengths.tolist() == [len(ids) for ids in expected]
    assert found.sentences.sum() == len(expected)
    assert found.unknown == sum(ids.count(tokenizer.unk_token_id) for ids in expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_those_of_the_tokenizer(family: str) -> None:
    words = words_of("The moviezz was really bad", corpus_tokenizer_of(load_tokenizer(family)))
    assert len(words) == 5
    assert max(map(len, words)) > 1


@pytest.mark.parametrize("text", ["这间酒店很好", "ฉันชอบ", "私はすき"])
def test_each_character_is_a_word_in_scripts_without_spaces(text: str) -> None:
    assert len(text) < LONGEST_WORD
    words = words_of(text, metaspace(text))
    assert [word[-1] for word in words] == list(text)


def test_latin_word_between_chinese_characters_stays_whole() -> None:
    assert words_of("我good酒", metaspace("我good酒")) == [["▁", "我"], ["g", "o", "o", "d"], ["酒"]]


def test_bytes_of_one_character_stay_together() -> None:
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = words_of("很好吗", CorpusTokenizer(backend.to_str(), None, "zh"))
    assert [len(word) for word in words] == [3, 3, 3]


def test_each_token_of_a_too_long_word_is_a_word() -> None:
    letters = metaspace("abcdefghijklmnop")
    assert len(words_of("abcdefghi", letters)) == 1
    assert {len(word) for word in words_of("abcdefghijklmnop", letters)} == {1}


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


def test_chunk_size_changes_no_token() -> None:
    texts, corpus_tokenizer = make_documents(30), corpus_tokenizer_of(load_tokenizer("bert"))
    whole = joined(tokenize_documents(documents(texts), corpus_tokenizer))
    chunks = list(tokenize_documents(documents(texts), corpus_tokenizer, chunk_characters=100))
    assert len(chunks) > 10
    assert joined(chunks) == whole
    one_document = documents([" ".join(texts)])
    at_once = tokenize_documents(one_document, corpus_tokenizer, chunk_characters=10**9)
    in_batches = tokenize_documents(one_document, corpus_tokenizer, chunk_characters=100)
    assert joined(at_once) == joined(in_batches)


def test_dead_process_is_a_fault() -> None:
    broken = CorpusTokenizer("no tokenizer", None, "en")
    with open_tokenizers(broken, 2) as tokenize, pytest.raises(Fault, match="a tokenizing process has died"):
        list(tokenize(documents(["a"])))


def test_processes_start_only_for_much_text() -> None:
    before = len(active_children())
    with open_tokenizers(corpus_tokenizer_of(load_tokenizer("bert")), 2, parallel_from=10) as tokenize:
        assert len(list(tokenize(documents(["little"])))) == 1
        assert len(active_children()) == before
        assert len(list(tokenize(documents(["much to do"])))) == 1
        assert len(active_children()) > before
    assert len(active_children()) == before


def joined(chunks: Iterable[TokenizedDocuments]) -> list[list[int]]:
    found = list(chunks)
    names = ("input_ids", "word_starts", "hashes", "lengths", "sentences")
    return [np.concatenate([getattr(chunk, name) for chunk in found]).tolist() for name in names]
