"""A missing attribute is answered with its name here, and is missing all the same."""

import copy
from typing import ClassVar

import pytest

from fullbake.core.attributes import NamesRightAttribute, describe_missing_attribute


class Thing(NamesRightAttribute):
    _synonyms: ClassVar = {"from_pretrained": "load", "classify": "predict"}
    _notes: ClassVar = {"fit": "It is trained already."}

    def predict(self) -> int:
        return 1

    @classmethod
    def load(cls) -> "Thing":
        return cls()


@pytest.mark.parametrize("owner", [Thing, Thing()])
def test_the_right_name_is_said(owner: object) -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'from_pretrained'. Here it is called 'load'\."):
        owner.from_pretrained  # noqa: B018
    with pytest.raises(AttributeError, match=r"Did you mean 'predict'\?"):
        owner.predcit  # noqa: B018
    with pytest.raises(AttributeError, match="It is trained already"):
        owner.fit  # noqa: B018


def test_attributes_stay_missing_for_whoever_asks() -> None:
    assert not hasattr(Thing(), "transform")
    assert getattr(Thing, "classify", None) is None
    assert copy.deepcopy(Thing()).predict() == 1


def test_a_name_with_an_underscore_gets_no_guess() -> None:
    assert describe_missing_attribute("it", "_predict", ["predict"], {}) == "it has no attribute '_predict'"
