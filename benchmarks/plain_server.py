"""What people write first: transformers' pipeline() behind a plain FastAPI handler with one lock.

    uvicorn plain_server:app        (FULLBAKE_BUNDLE names the folder of the weights)

benchmarks/serving.py compares `fullbake serve` with it. Same weights, same threads.
"""

import os
import threading

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from fullbake import Classifier  # noqa: F401  (the Auto classes know its heads from then on)

FOLDER = os.environ["FULLBAKE_BUNDLE"]
classify = pipeline(
    "text-classification",
    model=AutoModelForSequenceClassification.from_pretrained(FOLDER),
    tokenizer=AutoTokenizer.from_pretrained(FOLDER),
    top_k=None,
)
lock = threading.Lock()
app = FastAPI()


class Body(BaseModel):
    """The body of a request."""

    texts: list[str]


@app.post("/v1/predict")
def predict(body: Body) -> list:
    """Score texts."""
    with lock:
        return classify(body.texts, truncation=True)


@app.get("/health")
def health() -> dict:
    """Say that the model is loaded."""
    return {}
