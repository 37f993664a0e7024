"""The commands of raw text: `pretrain` a base on it, `pilot` whether that is worth it, `probe` what is forgotten."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fullbake.cli import tables
from fullbake.cli.options import StageFlags, StageOptions, resume_mode
from fullbake.cli.terminal import out, print_line, print_table
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.recipe import Recipe
from fullbake.training.checkpoints import CheckpointInterval

PILOT_STEPS = "200"


def add_to(app: App) -> None:
    """Register the commands."""
    for command in (pretrain, pilot, probe):
        app.command(command)


def pretrain(
    corpus: tuple[Path, ...],
    /,
    *,
    base: str,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe: str | None = None,
    text: str = "text",
    delimiter: str | None = None,
    encoding: str = "utf-8",
    keep_out: tuple[Path, ...] = (),
    overwrite: bool = False,
    checkpoint_every: str = "5m",
    resume: bool = False,
    resume_anyway: bool = False,
    restart: bool = False,
    cache_dir: Path | None = None,
    flags: StageFlags = StageOptions(),  # noqa: B008  (only read)
) -> None:
    """Way 1: let a base learn on from raw text (masked words, next sentences), and save it as a base.

    Parameters
    ----------
    corpus: Path
        Text: .txt files (a paragraph a line, a blank line between documents), or .csv, .tsv, .jsonl, .parquet files
        with a column of texts (a row is a document).
    base: str
        Folder in Hugging Face format, hub id, or `demo`; under --init random a folder with a config.json is enough.
    out_folder: Path
        Folder for the new base.
    recipe: str
        A recipe whose further pretraining is taken, such as further-pretrain, tapt or sun2019. Default: masked words
        and next sentences for 3 epochs at length 128, batch 32, rate 5e-5.
    text: str
        Column that holds the texts.
    delimiter: str
        Field separator of text files. Default: by extension.
    encoding: str
        Encoding of text files.
    keep_out: Path
        Tables whose texts must not be learned from, such as a test set. May be given several times.
    overwrite: bool
        Replace what stands in the output folder, once the new base is complete.
    checkpoint_every: str
        Save what is needed to go on every so many steps (50) or minutes (5m). It lies in OUT.unfinished until the base
        is done.
    resume: bool
        Go on with the unfinished run, and refuse to start anew.
    resume_anyway: bool
        Go on although the recipe, the corpus or the installed libraries differ.
    restart: bool
        Throw an unfinished run away and start anew.
    cache_dir: Path
        Where tokenized corpora are kept. Default: FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    stage = _stage(recipe, flags.model_dump(exclude_none=True))
    CheckpointInterval.parse(checkpoint_every)
    word = resume_mode(resume, resume_anyway, restart)
    from fullbake.pretraining.stage import further_pretrain

    about = further_pretrain(
        base,
        corpus,
        out_folder,
        stage=stage,
        text=text,
        delimiter=delimiter,
        encoding=encoding,
        keep_out=keep_out,
        overwrite=overwrite,
        cache_dir=cache_dir,
        checkpoint_every=checkpoint_every,
        resume=word,
    )
    print_table(tables.pretraining_table(about))
    print_line(f"base: {out_folder} (its curves: {out_folder / 'curves.png'})")
    print_line(f"Try it: fullbake train train.csv --base {out_folder} --out out/classifier")


def pilot(
    corpus: tuple[Path, ...],
    /,
    *,
    base: str,
    recipe: str | None = None,
    text: str = "text",
    delimiter: str | None = None,
    encoding: str = "utf-8",
    json: bool = False,
    cache_dir: Path | None = None,
    flags: StageFlags = StageOptions(),  # noqa: B008  (only read)
) -> None:
    """Whether further pretraining is worth the hours: how foreign the text is to the base, and 200 steps of it.

    Parameters
    ----------
    corpus: Path
        Text, as `fullbake pretrain` takes it; a labelled table is fine.
    base: str
        Folder in Hugging Face format, hub id, or `demo`.
    recipe: str
        A recipe whose further pretraining is tried.
    text: str
        Column that holds the texts.
    delimiter: str
        Field separator of text files. Default: by extension.
    encoding: str
        Encoding of text files.
    json: bool
        Print every figure as JSON instead of tables.
    cache_dir: Path
        Where tokenized corpora are kept. Default: FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    stage = _stage(recipe, {"steps": PILOT_STEPS, "evaluations": "4"} | flags.model_dump(exclude_none=True))
    from fullbake.pretraining.documents import file_source
    from fullbake.pretraining.pilot import run_pilot

    sources = [file_source(path, text=text, delimiter=delimiter, encoding=encoding) for path in corpus]
    facts = run_pilot(base, sources, stage, cache_dir=cache_dir)
    if json:
        out.print_json(data=facts, ensure_ascii=False)
        return
    print_table(tables.pilot_table(facts))
    for line in facts["words"]:
        print_line(line)


def probe(
    target: Path,
    /,
    *,
    base: str | None = None,
    text: Path | None = None,
    json: bool = False,
    cache_dir: Path | None = None,
) -> None:
    """What a base or a classifier's encoder still knows of general text, beside the base it was made from.

    Parameters
    ----------
    target: Path
        Folder of a base or of a bundle.
    base: str
        What it was made from. Default: what its fullbake.json says.
    text: Path
        General text (.txt, or a table with a column `text`). Default: bundled English sentences.
    json: bool
        Print every figure as JSON instead of a table.
    cache_dir: Path
        Where a masked-LM head that had to be trained is kept. Default: FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    from fullbake.pretraining.forgetting import probe as measure

    found = measure(target, base=base, text=None if text is None else str(text), cache_dir=cache_dir)
    if json:
        out.print_json(data=found, ensure_ascii=False)
    else:
        print_table(tables.probe_table(found))


def _stage(recipe: str | None, given: dict[str, str]) -> PretrainingConfig:
    """The stage of a recipe, or the plain one, with what the flags say."""
    return Recipe.load_stage(recipe, **given)
