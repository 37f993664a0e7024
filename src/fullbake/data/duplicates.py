"""Finds texts that are the same: equal after NFKC, case folding and whitespace collapsing, or nearly equal.

Two texts are near-equal if the sets of 5-character shingles of their normalized forms have a Jaccard similarity of
NEAR_DUPLICATE_SIMILARITY or more, and both have at least MIN_SHINGLES. Shorter texts ("ok thanks") are the same only if
equal: under 50 characters one changed letter makes another text. Shingles are characters, not words, so scripts without
spaces need no rule of their own.

Candidates come from MinHash signatures (Broder 1997) in bands (Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, 3.4). The exact similarity of each is computed, so there are no false matches. With 20 bands of 6 a pair at
0.8 is missed once in 430, at 0.9 practically never. The code is our own: datasketch takes 5.6 s for 8,322 comments,
this module 0.3.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fullbake.data.normalization import TextSequence, each_text, normalize

NEAR_DUPLICATE_SIMILARITY: Final = 0.8
"""Jaccard similarity from which on two texts are near-equal."""

MIN_SHINGLES: Final = 20
"""Texts with fewer different shingles are never near-equal to another one."""

SHINGLE_LENGTH: Final = 5
"""Characters of a shingle."""

BANDS: Final = 20
BAND_ROWS: Final = 6
"""Hashes of a band."""

Ids = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_BLOCK_CHARACTERS: Final = 32_768
"""Characters that are hashed at a time: the arrays of one block stay in the processor's cache."""

_VERIFIED_CHARACTERS: Final = 1_000_000
"""Characters of the pairs whose similarity is computed at a time."""

_SLACK: Final = 0.15
"""Four standard errors, at NEAR_DUPLICATE_SIMILARITY, of the similarity that is estimated from 120 hashes."""

_SET_BITS: Final = np.uint64(48)
_SET_MASK: Final = np.uint64(2**48 - 1)


def duplicate_groups(texts: TextSequence, *, near: bool = True) -> Ids:
    """Number the groups of equal and near-equal texts.

    Two texts are also in one group if both are near-equal to a third one. The same texts in the same order give the
    same numbers on any machine.

    Args:
        texts: (rows,) texts.
        near: also join near-equal texts; otherwise equal ones only.

    Returns:
        (rows,) group numbers, from 0 by first occurrence.
    """
    normalized = [normalize(text) for text in each_text(texts)]
    firsts, group_of = _equal_groups(normalized)
    if not near:
        return group_of
    near_groups = _near_groups([normalized[row] for row in firsts])
    return _renumber(near_groups[group_of])


def find_overlap(texts: TextSequence, others: TextSequence, *, near: bool = True) -> tuple[Ids, Ids]:
    """Find the texts that two collections share.

    Args:
        texts: (rows,) texts.
        others: (other rows,) texts.
        near: also find near-equal texts, as `duplicate_groups` does; otherwise equal ones only.

    Returns:
        The sorted positions in `texts` and those in `others` of the shared texts.
    """
    both = [*each_text(texts), *each_text(others)]
    groups = duplicate_groups(both) if near else _equal_groups([normalize(text) for text in both])[1]
    one, two = groups[: len(texts)], groups[len(texts) :]
    return np.flatnonzero(np.isin(one, two)), np.flatnonzero(np.isin(two, one))


def _equal_groups(normalized: list[str]) -> tuple[list[int], Ids]:
    """Return the first row of each group of equal texts, and (rows,) the group of each row."""
    numbers: dict[str, int] = {}
    firsts: list[int] = []
    groups = np.empty(len(normalized), dtype=np.int64)
    for row, text in enumerate(normalized):
        if text not in numbers:
            numbers[text] = len(firsts)
            firsts.append(row)
        groups[row] = numbers[text]
    return firsts, groups


def _renumber(groups: Ids) -> Ids:
    """Number groups by their first occurrence."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _near_groups(texts: list[str]) -> Ids:
    """Return (texts,) the group of near-equal texts of each distinct normalized text."""
    rows = np.flatnonzero([len(text) >= MIN_SHINGLES + SHINGLE_LENGTH - 1 for text in texts])
    long_enough = [texts[row] for row in rows]
    signatures = _all_signatures(long_enough)
    groups = np.arange(len(texts))
    edges = np.empty((0, 2), dtype=np.int64)
    for band in range(BANDS):
        pairs = _bucket_pairs(_band_keys(signatures, band))
        # the exact similarity is the slow step: skip pairs that are in one group already, or whose signatures differ
        pairs = pairs[groups[rows[pairs[:, 0]]] != groups[rows[pairs[:, 1]]]]
        pairs = pairs[_may_be_near(signatures, pairs)]
        edges = np.concatenate([edges, rows[pairs[_are_near(long_enough, pairs)]]])
        groups = _components(len(texts), edges)
    return groups


def _components(size: int, edges: Ids) -> Ids:
    """Return (size,) the connected component of each node of a graph."""
    ones = np.ones(len(edges), dtype=bool)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(size, size))
    groups: Ids = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups


def _all_signatures(texts: list[str]) -> npt.NDArray[np.uint32]:
    """Return the MinHash signatures (texts, BANDS * BAND_ROWS), 480 bytes a text, computed block by block."""
    signatures = np.empty((len(texts), BANDS * BAND_ROWS), dtype=np.uint32)
    for start, stop in _spans([len(text) for text in texts], _BLOCK_CHARACTERS):
        signatures[start:stop] = _signatures(*_shingles(texts[start:stop])).T
    return signatures


def _band_keys(signatures: npt.NDArray[np.uint32], band: int) -> Hashes:
    """Return (texts,) one band of each signature as a single number."""
    keys = np.zeros(len(signatures), dtype=np.uint64)
    for column in range(band * BAND_ROWS, (band + 1) * BAND_ROWS):
        keys = _mix(keys * _ODD + signatures[:, column])
    return keys


def _may_be_near(signatures: npt.NDArray[np.uint32], pairs: Ids) -> npt.NDArray[np.bool_]:
    """Return (pairs,) whether the similarity estimated from the signatures is high enough to compute the exact one."""
    answers = np.empty(len(pairs), dtype=bool)
    for start in range(0, len(pairs), 2**14):
        one, two = pairs[start : start + 2**14].T
        answers[start : start + 2**14] = (signatures[one] == signatures[two]).mean(
            axis=1
        ) >= NEAR_DUPLICATE_SIMILARITY - _SLACK
    return answers


def _spans(lengths: list[int], budget: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of spans of items whose lengths sum to about `budget`; each has 1 to 2**15 items."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + budget)))
        stop = min(stop, start + 2**15)
        yield start, stop
        start = stop


def _shingles(texts: list[str]) -> tuple[Hashes, Ids]:
    """Hash the shingles of texts of SHINGLE_LENGTH characters or more.

    Returns:
        The hash of every shingle, text after text; and (texts,) where the hashes of each text start.
    """
    lengths = np.array([len(text) for text in texts])
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    # A polynomial hash of the SHINGLE_LENGTH code points that start at each position.
    last = len(codes) - SHINGLE_LENGTH + 1
    hashes = codes[:last].copy()
    for offset in range(1, SHINGLE_LENGTH):
        hashes *= _ODD
        hashes += codes[offset : offset + last]
    starts = np.cumsum(lengths) - lengths
    return _mix(_without_seams(hashes, starts[1:])), starts - (SHINGLE_LENGTH - 1) * np.arange(len(texts))


def _without_seams(hashes: Hashes, seams: Ids) -> Hashes:
    """Drop the shingles that begin in one text and end in the next."""
    keep = np.ones(len(hashes), dtype=bool)
    for offset in range(1, SHINGLE_LENGTH):
        keep[seams - offset] = False
    return hashes[keep]


def _mix(values: Hashes) -> Hashes:
    """Mix the bits of each value, so that every bit depends on every bit: the finalizer of splitmix64 (Steele, Lea and
    Flood 2014)."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_COUNTS: Final = np.arange(1, BANDS * BAND_ROWS + 1, dtype=np.uint64)
_FACTORS: Final = _mix(_COUNTS * _ODD).astype(np.uint32) | np.uint32(1)


def _signatures(hashes: Hashes, starts: Ids) -> npt.NDArray[np.uint32]:
    """Return (BANDS * BAND_ROWS, texts), the least value of each text's shingles under each of the hash functions."""
    short = (hashes >> np.uint64(32)).astype(np.uint32)
    signatures = np.empty((len(_FACTORS), len(starts)), dtype=np.uint32)
    scratch = np.empty_like(short)
    # A hash function is a multiplication by an odd number, modulo 2**32.
    for row, factor in enumerate(_FACTORS):
        np.multiply(short, factor, out=scratch)
        np.minimum.reduceat(scratch, starts, out=signatures[row])
    return signatures


def _bucket_pairs(keys: Hashes) -> Ids:
    """Pair the texts of each bucket, a bucket being the texts with the same key.

    Each text is paired with the first one of its bucket and with the one before it, not with all: the number of pairs
    stays linear, and the groups join what overlapping buckets share.

    Returns:
        (pairs, 2) positions of texts.
    """
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    later = np.flatnonzero(same) + 1
    heads = np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0)
    first = np.maximum.accumulate(heads)[later]
    chained = np.stack([order[later - 1], order[later]], axis=1)
    starred = np.stack([order[first], order[later]], axis=1)
    return np.concatenate([chained, starred[first != later - 1]]).astype(np.int64)


def _are_near(texts: list[str], pairs: Ids) -> npt.NDArray[np.bool_]:
    """Return (pairs,) whether the exact similarity of the two texts makes them near-equal."""
    lengths = [len(texts[one]) + len(texts[two]) for one, two in pairs.tolist()]
    batches = [_are_near_batch(texts, pairs[start:stop]) for start, stop in _spans(lengths, _VERIFIED_CHARACTERS)]
    return np.concatenate([np.empty(0, dtype=bool), *batches])


def _are_near_batch(texts: list[str], pairs: Ids) -> npt.NDArray[np.bool_]:
    # Many pairs at once: sort the shingles of both texts of each pair; those that occur twice are shared.
    rows, places = np.unique(pairs, return_inverse=True)
    keys, starts, sizes = _shingle_sets([texts[row] for row in rows.tolist()])
    members = places.ravel()  # the two texts of the first pair, of the second, ...
    pair_of = np.repeat(np.arange(len(members)) // 2, sizes[members])
    ends = np.cumsum(sizes[members])
    within = np.arange(ends[-1]) - np.repeat(ends - sizes[members], sizes[members])
    gathered = keys[np.repeat(starts[members], sizes[members]) + within]
    both = np.sort((pair_of.astype(np.uint64) << _SET_BITS) | (gathered & _SET_MASK))
    twice = (both[1:][both[1:] == both[:-1]] >> _SET_BITS).astype(np.int64)
    shared = np.bincount(twice, minlength=len(pairs))
    pair_sizes = sizes[members].reshape(-1, 2)
    near = shared >= NEAR_DUPLICATE_SIMILARITY * (pair_sizes.sum(axis=1) - shared)
    answers: npt.NDArray[np.bool_] = near & (pair_sizes.min(axis=1) >= MIN_SHINGLES)
    return answers


def _shingle_sets(texts: list[str]) -> tuple[Hashes, Ids, Ids]:
    """Return the distinct shingles of each text as 48 bits of their hashes, text after text; where each text's start;
    and how many each text has.

    Two different shingles of a pair share these bits once in 2**48 / (its shingles)**2 pairs.
    """
    hashes, starts = _shingles(texts)
    owner = np.repeat(np.arange(len(texts)), np.diff(np.append(starts, len(hashes))))
    keys = np.sort((owner.astype(np.uint64) << _SET_BITS) | (hashes & _SET_MASK))
    keys = keys[np.append(True, keys[1:] != keys[:-1])]  # np.unique is ten times slower on these
    sizes = np.bincount((keys >> _SET_BITS).astype(np.int64), minlength=len(texts))
    return keys, np.cumsum(sizes) - sizes, sizes
