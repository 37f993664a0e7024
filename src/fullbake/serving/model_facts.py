"""What the page shows of a model's card. A server may be open to strangers: no path, no text, no name of a file."""

import re
from typing import Any, Final

from fullbake.classifier.model import Classifier

_SCORES: Final = ("accuracy", "f1_macro", "f1_micro")


def card_facts(classifier: Classifier) -> dict[str, Any]:
    """Return how a classifier was trained, on how many rows, and its scores with their intervals.

    Args:
        classifier: A bundle or a cascade. Of a cascade the scores are the teacher's.

    Returns:
        JSON values. `base` is the last part of the base's name, because a base may be a folder. `scores` has, of the
        test rows or else of the validation rows, the scores that the model card shows: value, low, high; the last two
        are null where no interval was computed.
    """
    facts = classifier.record.facts
    recipe, data = facts.get("recipe") or {}, facts.get("data") or {}
    return {
        "base": _last_part(recipe.get("base")),
        "way": recipe.get("way"),
        "head": (recipe.get("head") or {}).get("kind"),
        "student": facts.get("student") is not None,
        "rows": {part: rows for part, rows in (data.get("rows") or {}).items() if isinstance(rows, int)},
        "scores": _scores(facts.get("metrics") or {}),
        "warnings": classifier.stamps,
        "cascade": facts.get("cascade") if classifier.first is not None else None,
        "fullbake": (facts.get("versions") or {}).get("fullbake"),
    }


def _last_part(base: object) -> str | None:
    return re.split(r"[/\\]", base.rstrip("/\\"))[-1] if isinstance(base, str) else None


def _scores(metrics: dict[str, Any]) -> dict[str, Any] | None:
    part = next((part for part in ("test", "validation") if part in metrics), None)
    if part is None:
        return None
    overall = metrics[part].get("overall") or {}
    values = {
        name: {key: overall[name].get(key) for key in ("value", "low", "high")} for name in _SCORES if name in overall
    }
    return {"part": part, "rows": metrics[part].get("rows"), "values": values}
