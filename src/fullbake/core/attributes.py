"""Answer an attribute that an object lacks with the name it has here: `from_pretrained` with `load`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from fullbake.core.errors import similar_names
from fullbake.core.synonyms import right_name


def describe_missing_attribute(
    owner: str,
    name: str,
    names: list[str],
    synonyms: Mapping[str, str],
    notes: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the text of an AttributeError, with the right name if the wrong one tells it.

    Args:
        owner: What lacks the attribute, such as "module 'fullbake'".
        name: The attribute.
        names: The attributes that there are.
        synonyms: Other words for them.
        notes: A word for what there is not -> a sentence that says what to do instead.
    """
    shown = [known for known in names if not known.startswith("_")]
    what = f"{owner} has no attribute {name!r}"
    if name.startswith("_"):
        return what
    if name in notes:
        return f"{what}. {notes[name]}"
    meant = right_name(name, shown, synonyms)
    if meant is not None:
        return f"{what}. Here it is called {meant!r}."
    near = similar_names(name, shown)
    return f"{what}. Did you mean {near[0]!r}?" if near else what


if TYPE_CHECKING:
    # A type checker would take a __getattr__ as a promise that every attribute is there.
    class NamesRightAttribute:
        """A class whose missing attributes are answered with the right name."""

        _synonyms: ClassVar[Mapping[str, str]]
        _notes: ClassVar[Mapping[str, str]]
else:

    class _NamesOfClass(type):
        def __getattr__(cls, name):
            owner = f"class {cls.__name__!r}"
            raise AttributeError(describe_missing_attribute(owner, name, dir(cls), cls._synonyms, cls._notes))

    class NamesRightAttribute(metaclass=_NamesOfClass):
        """A class whose missing attributes are answered with the right name."""

        _synonyms: ClassVar[Mapping[str, str]] = {}
        _notes: ClassVar[Mapping[str, str]] = {}

        def __getattr__(self, name):
            kind = type(self)
            words = describe_missing_attribute(
                f"{kind.__name__!r} object", name, dir(kind), kind._synonyms, kind._notes
            )
            raise AttributeError(words, name=name, obj=self)
