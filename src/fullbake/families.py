"""Parts of transformers' networks that are known by their class, and the subclass that computes one otherwise.

A subclass overrides `forward` and nothing else, so a part that is given it keeps its parameters and their names.
"""

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

Forward = Callable[..., Any]


def known_class(module: nn.Module, known: Collection[str]) -> type[nn.Module] | None:
    """The class in transformers of a module that is among `known`, whether or not it has been given a subclass."""
    return next((cls for cls in type(module).__mro__ if family_name(cls) in known), None)


def family_name(cls: type) -> str:
    """A class of transformers by its family and name, `bert.BertLayer`."""
    package = cls.__module__.rpartition(".")[0]
    return f"{package.removeprefix('transformers.models.')}.{cls.__name__}"


def is_subclassed(module: nn.Module, known: Collection[str]) -> bool:
    """Whether a module of a known class has been given a subclass."""
    plain = known_class(module, known)
    return plain is not None and type(module) is not plain


def subclass(plain: type[nn.Module], prefix: str, forward: Forward) -> type[nn.Module]:
    """`plain` with another forward."""
    return type(f"{prefix}{plain.__name__}", (plain,), {"forward": forward})
