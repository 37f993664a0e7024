"""What someone types who has read nothing, and the answer that each line gets.

`python tests/helpers/newcomer.py` writes the answers anew, to be read by a person before they are committed.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ANSWERS = HERE.parent / "fixtures" / "newcomer.txt"
BUNDLE = HERE.parent / "fixtures" / "bundle_0_1_0"

SHELL = """
fullbake -V
fullbake reviews.csv
fullbake fit reviews.csv
fullbake --model bert-base-uncased
fullbake train
fullbake train reviews.csv
fullbake train reviews.csv --lr 3e-5 --max-len 128
fullbake train reviews.csv --model_name_or_path bert-base-uncased --num_train_epochs 3 --do_train --output_dir m
fullbake train reviws.csv --base demo --out m
fullbake train reviews.csv test.csv --base demo --out m
fullbake train reviews.csv --text review --label star --base demo --out m
fullbake train reviews.csv --text review --label stars --base demoo --out m
fullbake train reviews.csv --text review --label stars --base demo --out m --epochs three --head linar
fullbake train reviews.csv --text review --label stars --base demo --out m --way feature-extraction
fullbake train reviews.csv --text review --label stars --base demo --out m --metric f1
fullbake train reviews.csv --text review --label stars --base demo --out
fullbake predict classifier new.cvs
fullbake predict classifier data/new
fullbake predict clasifier "Great film"
fullbake predict "Great film"
fullbake predict classifier "Great film" --top_k
fullbake predict classifier data/news.csv --cutoff 0.8
fullbake predict classifier data/news.csv --threshold sure
fullbake classify classifier "Great film"
fullbake evaluate classifier
fullbake evaluate reviews.csv classifier
fullbake evaluate classifier reviews.csv
fullbake evaluate classifier reviews.csv --batch-size 64
fullbake export
fullbake recipes fine-tune
fullbake compare reviews.csv --models finetune,frozen
fullbake inspect reviews.csv --sep ;
""".strip().splitlines()

PYTHON = """
fullbake.train("reviews.csv")
Recipe(lr=3e-5)
Recipe("finetune")
Recipe.load("fine-tune")
Recipe.load("bert-base-uncased")
Recipe.load(base="demo", max_len=128, num_train_epochs=3, device="cuda")
Recipe.load(base="demo", learning_rate=3)
Recipe.load(base="demo").epochs
Recipe.load(base="demo").training.epochs = 5
adapt("reviews.csv", base="demo")
adapt(Recipe.load(base="demo"), "reviws.csv")
adapt("finetune", "reviews.csv", base="demo", epoch=3)
adapt("finetune", "reviews.csv", base="demo")
adapt("reviews.csv", Recipe.load(base="demo"))
Classifier("classifier")
Classifier.from_pretrained("classifier")
Classifier.load("clasifier")
Classifier.load("reviews.csv")
classifier.classify(["Great film"])
classifier.predict("Great film")
classifier.predict("new.csv")
classifier.predict_probability(["Great film"])
classifier.fit(["Great film"], ["5"])
classifier.save_pretrained("m")
classifier.label2id
classifier.eval()
evaluate(classifier)
compare("reviews.csv", base="demo")
read_dataset("reviews.csv")
""".strip().splitlines()


@contextlib.contextmanager
def folder_of_newcomer() -> Iterator[Path]:
    """Change into a new folder with a file of reviews and a classifier."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = ("A great film", "So bad it hurts", "All right for a rainy day")
        rows = [
            f"{film} number {number},{stars}" for number in range(20) for film, stars in zip(films, "513", strict=True)
        ]
        (folder / "reviews.csv").write_text("review,stars\n" + "\n".join(rows) + "\n")
        (folder / "data").mkdir()
        (folder / "data" / "news.csv").write_text("text\nA great film\n")
        shutil.copytree(BUNDLE, folder / "classifier")
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def answer_of_shell(line: str) -> str:
    """Return what a command line prints."""
    from fullbake.cli.main import main

    words = shlex.split(line)
    out, argv = io.StringIO(), sys.argv
    sys.argv = words
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main(words[1:])
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    return f"{out.getvalue().rstrip()}\n[exit code {code}]"


def answer_of_python(line: str, names: dict[str, Any]) -> str:
    """Return what a line of Python raises, or its value."""
    try:
        try:
            return repr(eval(line, names))
        except SyntaxError:
            exec(line, names)
            return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def names_of_python() -> dict[str, Any]:
    """Return the names that a newcomer has imported."""
    import fullbake

    names = {name: getattr(fullbake, name) for name in fullbake.__all__}
    return names | {"fullbake": fullbake, "classifier": fullbake.Classifier.load("classifier", engine="torch")}


def all_answers() -> str:
    """Return each line with its answer, as the file holds them."""
    with folder_of_newcomer():
        parts = [f"$ {line}\n{answer_of_shell(line)}\n" for line in SHELL]
        names = names_of_python()
        parts += [f">>> {line}\n{answer_of_python(line, names)}\n" for line in PYTHON]
    return _without_lists_of_commands("\n".join(parts))


def _without_lists_of_commands(answers: str) -> str:
    """Return the answers with dots for lists of commands: another command adds to them."""
    answers = re.sub(r"The commands are [^.]*\.", "The commands are ....", answers)
    return re.sub(r"(?:[a-z]+, )+[a-z]+ have --", "... have --", answers)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    ANSWERS.write_text(all_answers(), "utf-8")
