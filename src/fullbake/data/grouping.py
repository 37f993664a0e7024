"""Which rows stay together in a split: equal and nearly equal texts, and rows of one group, such as a user.

Both bonds join rows, also through other rows. Where that leaves too little to split, the errors name the flags that
loosen a bond: `--near-duplicates apart` for texts made from a template; and with `--group`, `--drop-overlap` or
`--allow-overlap`, under which an equal text no longer joins two groups.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fullbake.config.sections import DataConfig
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset
from fullbake.data.duplicates import Ids, duplicate_groups


def texts_may_cross(config: DataConfig) -> bool:
    """Return True if an equal text does not join two groups, because the recipe says what becomes of it."""
    return config.group is not None and (config.drop_overlap or config.allow_overlap)


def group_texts(data: Dataset, config: DataConfig) -> Ids:
    """Return (rows,) the group of each row's text: equal texts, and nearly equal ones unless these may be apart."""
    return duplicate_groups(data.joined_texts, near=config.near_duplicates == "together")


def bind_rows(data: Dataset, text_groups: Ids, config: DataConfig) -> Ids:
    """Return (rows,) the group of rows that stay together.

    Args:
        data: the rows.
        text_groups: what `group_texts` returned for them.
        config: the recipe's `data` section.
    """
    own = data.group_ids
    if own is None:
        return text_groups
    return own if texts_may_cross(config) else join_groups(own, text_groups)


def join_groups(one: Ids, other: Ids) -> Ids:
    """Return (rows,) groups in which rows are together that are so in one of two groupings, also through other rows."""
    # A graph whose nodes are the groups of both; each row is an edge between its two groups.
    first, second = (np.unique(groups, return_inverse=True)[1] for groups in (one, other))
    size, nodes = int(first.max(initial=-1)) + 1, int(first.max(initial=-1) + second.max(initial=-1)) + 2
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second + size)), shape=(nodes, nodes))
    joined: Ids = connected_components(graph, directed=False)[1].astype(np.int64)[first]
    return joined


def divisible_labels(groups: Ids, strata: tuple[Ids, Ids]) -> tuple[Ids, np.ndarray]:
    """Return the strata that occur, and whether each is in more than one group.

    Args:
        groups: (rows,) the group of each row.
        strata: pairs of row and stratum, as `Problem.strata` returns them.
    """
    rows, kinds = strata
    pairs = np.unique(np.stack([kinds, groups[rows]]), axis=1)
    names, counts = np.unique(pairs[0], return_counts=True)
    return names, counts > 1


def loosen_remedy(config: DataConfig) -> str:
    """Return a sentence with the flags that keep fewer rows together."""
    flags = []
    if config.near_duplicates == "together":
        flags.append("--near-duplicates apart, which keeps only equal texts together (scores are then marked)")
    if config.group is not None and not texts_may_cross(config):
        flags.append("--drop-overlap, under which equal texts of different groups no longer join these groups")
    if config.group is not None:
        flags.append("another --group column")
    return f"Pass {', or '.join(flags)}. " if flags else ""


def unsplittable_error(data: Dataset, config: DataConfig, got: str) -> DataError:
    """Return the error for rows of which no part can be held out."""
    remedy = f"{loosen_remedy(config)}Or give files by --validation and --test."
    if len(np.unique(duplicate_groups(data.joined_texts, near=False))) < 2:
        remedy = "All texts are equal: check that this is the text column, or add rows."
    bond = "equal texts" if config.near_duplicates == "apart" else "equal or nearly equal texts"
    bond = bond if config.group is None else f"{bond} and rows of one {config.group!r}"
    return DataError(
        "the rows cannot be split",
        where=data.source,
        expected=f"two or more groups of rows of a label ({bond} stay together)",
        got=got,
        remedy=remedy,
    )
