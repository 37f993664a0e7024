"""What a bundle says of its predictions, read from its own description alone: no network, no tokenizer, no torch.

A program that sends a bundle to workers needs its labels and columns, to name the columns of the result and to refuse
wrong options before any worker starts. The workers load the bundle itself, and check it whole.
"""

from dataclasses import dataclass
from pathlib import Path

from fullbake.classifier.cascade_files import CASCADE_FILE, TEACHER, is_cascade, read_cascade
from fullbake.classifier.manifest import read_manifest
from fullbake.config.fields import ScoringPrecision
from fullbake.config.problems import Problem, problem_named
from fullbake.config.sections import Columns
from fullbake.core.errors import BundleError
from fullbake.core.hashing import file_sha256
from fullbake.core.storage import MANIFEST_FILE
from fullbake.evaluation.decisions import Decision


@dataclass(frozen=True)
class BundleOutline:
    """The part of a bundle's description that says what its predictions look like."""

    digest: str
    """As `bundle_digest` computes it."""

    problem: Problem
    label_names: tuple[str, ...]
    """In the order of the scores."""

    columns: Columns
    """The names of the text columns in training."""

    decision: Decision
    cascade: bool
    """True if a student answers first."""


def bundle_digest(folder: Path) -> str:
    """Return the sha256 of the file that holds the hashes of all others: fullbake.json, or cascade.json of a cascade.

    Args:
        folder: The bundle.

    Raises:
        BundleError: The folder is no bundle.
    """
    name = CASCADE_FILE if is_cascade(folder) else MANIFEST_FILE
    if not (folder / name).is_file():
        read_manifest(folder)  # raises the error that says what the folder is instead
    return file_sha256(folder / name)


def read_outline(folder: Path, precision: ScoringPrecision = "fp32") -> BundleOutline:
    """Read what the predictions of a bundle will look like.

    Args:
        folder: A bundle or a cascade. The hashes of its large files are not checked.
        precision: What it will be scored in: the int8 graph has a decision of its own.

    Raises:
        BundleError: It is no bundle, or its description is damaged, or it has no graph for this precision.
    """
    cascade = is_cascade(folder)
    if cascade:
        read_cascade(folder)
    facts = read_manifest(folder / TEACHER if cascade else folder)
    if precision != "fp32" and (cascade or "int8" not in facts):
        raise BundleError(
            "a cascade is scored in fp32 alone" if cascade else "this bundle has no int8 graph",
            where=str(folder),
            got=f"--precision {precision}",
            remedy="Leave out --precision (precision).",
        )
    rule = facts["thresholds"] if precision == "fp32" else facts["int8"]["thresholds"]
    names, problem = tuple(facts["label_names"]), problem_named(facts["problem_type"])
    decision = Decision.from_json(rule, problem, names)
    return BundleOutline(bundle_digest(folder), problem, names, Columns.from_json(facts["columns"]), decision, cascade)
