"""Say what a word that is no field of a recipe is called here, or where in Python it belongs."""

from collections.abc import Collection
from typing import Final

from fullbake.core.errors import did_you_mean
from fullbake.core.synonyms import FIELD_SYNONYMS, no_setting

_ARGUMENTS: Final = {
    "out": "The folder of the bundle is no part of a recipe: adapt(recipe, rows, out='classifier').",
    "data": "The rows are no part of a recipe: adapt(recipe, rows).",
    "max_rows": "The number of rows is no part of a recipe: adapt(recipe, rows, max_rows=1000).",
    "overwrite": "Replacing a bundle is no part of a recipe: adapt(recipe, rows, out='classifier', overwrite=True).",
    "recipe": "A recipe that exists is loaded: Recipe.load('frozen', base='demo').",
    "resume": "Resuming is no part of a recipe: adapt(recipe, rows, out='classifier', resume='require').",
    "checkpoint_every": "Checkpoints are no part of a recipe: adapt(recipe, rows, checkpoint_every='50').",
    "threads": "Threads are no part of a recipe: torch.set_num_threads(4).",
    "engine": "Where it computes is no part of a recipe: a GPU is used where torch finds one.",
    "seeds": "A recipe has one seed; compare(rows, recipes, seeds=3) trains with several.",
    "rates": "learning_rate takes several rates, and validation chooses: learning_rate=[5e-5, 3e-5].",
    "debug": "How much is printed is no part of a recipe: logging.getLogger('fullbake').setLevel('DEBUG').",
    "quiet": "How much is printed is no part of a recipe: logging.getLogger('fullbake').setLevel('WARNING').",
    "graph": "A graph is added afterwards: classifier.save('classifier', graph=True).",
    "steps": "Training counts epochs, and min_steps raises them; steps is a field of further_pretraining.",
}
"""What a synonym means that is no field -> where it belongs in Python."""


def describe_unknown_field(name: str, fields: Collection[str]) -> str:
    """Return sentences for a name that is no field of a recipe: what it is called, or where it belongs.

    Args:
        name: What the user wrote.
        fields: The names of all fields.
    """
    word = name.casefold().replace("-", "_")
    meant = FIELD_SYNONYMS.get(word, word)
    elsewhere = no_setting(name) or _ARGUMENTS.get(meant)
    return f"there is no such field. {elsewhere or did_you_mean(name, fields, FIELD_SYNONYMS)}"
