"""Make a cascade: a student answers where it is sure enough, its teacher answers the rest.

The threshold is chosen on texts that neither was trained on, and what it promises holds for new texts like these
(`evaluation.agreement`). Any classifier of the same labels can be the student.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.cascade_files import SaveFunction, write_cascade
from fullbake.classifier.distill import GivenTexts, read_texts
from fullbake.classifier.model import Classifier, FirstAnswers
from fullbake.classifier.predict import as_classifier
from fullbake.core import storage
from fullbake.core.arguments import PATH
from fullbake.core.console import say, warn
from fullbake.core.errors import BundleError, DataError, RecipeError
from fullbake.data.normalization import text_hashes
from fullbake.evaluation.agreement import choose_threshold, decision_margins, describe_threshold


def make_cascade(
    student: Classifier | str | Path,
    teacher: Classifier | str | Path,
    data: Any,
    *,
    agreement: float = 0.99,
    out: str | Path | None = None,
    overwrite: bool = False,
    text: str | None = None,
    **dialect: Any,
) -> Classifier:
    """Find from which margin on a student may answer in its teacher's place, and join the two.

    Args:
        student: The fast classifier, or the folder of its bundle; any classifier of the same labels will do.
        teacher: The classifier whose labels are promised, or the folder of its bundle.
        data: Texts like those it will meet, which neither was trained on: as for `distill`. Those that either was
            trained on are left out.
        agreement: The share of texts that must get the teacher's label; it holds for new texts like these with a
            certainty of 95%.
        out: Folder for the cascade, which holds copies of both bundles. None saves nothing.
        overwrite: Replace what the folder holds.
        text: Column of the texts in files. None: its name in training.
        **dialect: How files are written, as for `read_dataset`.

    Returns:
        The cascade. Where no margin keeps the agreement, the teacher answers all.

    Raises:
        BundleError: The two have other labels, other problems, or other columns.
        DataError: The texts cannot be read, or all of them were trained on.
        RecipeError: The agreement is not between 0 and 1.
        OutputError: `out` holds something, or cannot be written.
    """
    check_agreement(agreement)
    if out is not None:
        storage.recover(out)
        storage.require_vacant(out, overwrite=overwrite)
    members = {"student": student, "teacher": teacher}
    fast, slow = (as_classifier(member) for member in members.values())
    check_members(fast, slow)
    given = _unseen(read_texts(slow, data, text=text, **dialect), fast, slow)
    trial = try_student(fast, slow, given.texts)
    threshold = choose_threshold(trial.margins, trial.agrees, agreement)
    if threshold.margin is None:
        warn(describe_threshold(threshold))
    if out is not None:
        sizes = sum(_size(member) for member in members.values())
        writers = {name: _writer(member) for name, member in members.items()}
        write_cascade(Path(out), writers, threshold, needed=sizes, overwrite=overwrite)
    return slow.with_first(FirstAnswers(fast, threshold))


def check_agreement(agreement: float) -> None:
    """Raise RecipeError if an agreement is not between 0 and 1."""
    if isinstance(agreement, bool) or not isinstance(agreement, int | float) or not 0 < agreement < 1:
        raise RecipeError(
            "an agreement is a share of texts",
            where="--agreement",
            expected="above 0 and below 1, such as 0.99",
            got=repr(agreement),
        )


@dataclass(frozen=True, eq=False)
class StudentTrial:
    """A student beside its teacher on the same texts."""

    margins: NDArray[np.float64]
    """The student's, (texts,)."""

    agrees: NDArray[np.bool_]
    """Whether it gives the teacher's label or labels, (texts,)."""


def try_student(student: Classifier, teacher: Classifier, texts: list[str]) -> StudentTrial:
    """Score texts with a student and its teacher, both by the teacher's decision."""
    problem, decision = teacher.problem, teacher.decision
    probabilities = problem.probabilities(student.logits(texts))
    labels = decision.decide(teacher.predict_proba(texts))
    return StudentTrial(
        decision_margins(decision, probabilities), problem.equal_rows(decision.decide(probabilities), labels)
    )


def check_members(student: Classifier, teacher: Classifier) -> None:
    """Raise BundleError if two classifiers cannot be a cascade, with the reason."""
    facts: dict[str, list[Any]] = {
        "labels": [list(part.label_names) for part in (student, teacher)],
        "kind of problem": [part.problem_type for part in (student, teacher)],
    }
    for name, (own, other) in facts.items():
        if own != other:
            raise BundleError(
                f"student and teacher differ in their {name}",
                expected=f"those of the teacher: {_short(other)}",
                got=_short(own),
                remedy="Make the student by `fullbake distill TEACHER`.",
            )
    if teacher.columns.text_pair is not None or student.columns.text_pair is not None:
        raise BundleError(
            "a cascade reads single texts, and this classifier reads pairs",
            remedy="Use the classifier as it is.",
        )
    if student.first is not None or teacher.first is not None:
        raise BundleError(
            "a cascade cannot be a part of another one",
            remedy="Pass its student or its teacher: the folders `student` and `teacher` within it.",
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _unseen(given: GivenTexts, student: Classifier, teacher: Classifier) -> GivenTexts:
    """Leave out the texts that either classifier was trained on. Raise DataError if none is left."""
    seen = {bytes(row) for part in (student, teacher) for row in part.record.seen.get("hashes", ())}
    fresh = np.array([bytes(row) not in seen for row in text_hashes(given.texts)])
    if not fresh.any():
        raise DataError(
            "student or teacher was trained on all of these texts, so they cannot show how often the two agree",
            where=given.source,
            got=f"{len(given.texts):,} texts",
            remedy="Give other texts of the same kind. Labels are not needed.",
        )
    if not fresh.all():
        say(f"{int((~fresh).sum()):,} of {len(fresh):,} texts are left out: student or teacher was trained on them")
    labels = None if given.labels is None else given.labels[fresh]
    texts = [text for text, keep in zip(given.texts, fresh, strict=True) if keep]
    return GivenTexts(texts, labels, given.labeled[fresh], given.source)


def _writer(member: Classifier | str | Path) -> SaveFunction:
    """Return what writes a bundle: a copy of a folder with all its files, or a classifier saved."""
    if isinstance(member, PATH):
        return lambda folder: shutil.copytree(member, folder)
    return member.save


def _size(member: Classifier | str | Path) -> int:
    if isinstance(member, PATH):
        return sum(path.stat().st_size for path in Path(member).rglob("*") if path.is_file())
    return sum(tensor.nbytes for tensor in member.network.state_dict().values())
