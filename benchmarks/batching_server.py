"""The same weights behind LitServe with its batching: pipeline() on as many texts as wait, at most 32.

    python batching_server.py PORT        (FULLBAKE_BUNDLE names the folder of the weights)

benchmarks/serving.py compares `fullbake serve` with it. One worker process, one thread.
"""

import os
import sys
from typing import Any

import litserve
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from fullbake import Classifier  # noqa: F401  (the Auto classes know its heads from then on)


class Classify(litserve.LitAPI):
    """One request carries a list with one text, as the load generator sends it."""

    def setup(self, device: Any) -> None:  # noqa: ARG002
        """Load the weights in the worker."""
        folder = os.environ["FULLBAKE_BUNDLE"]
        self.classify = pipeline(
            "text-classification",
            model=AutoModelForSequenceClassification.from_pretrained(folder),
            tokenizer=AutoTokenizer.from_pretrained(folder),
            top_k=None,
        )

    def decode_request(self, request: dict) -> str:
        """Return the text of a request."""
        return request["texts"][0]

    def predict(self, x: Any) -> list:
        """Score the texts that wait in one batch."""
        return self.classify(x, truncation=True, batch_size=len(x))

    def encode_response(self, output: Any) -> dict:
        """Return the scores of a text."""
        return {"scores": output}


if __name__ == "__main__":
    api = Classify(max_batch_size=32, batch_timeout=0.005, api_path="/v1/predict")
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error")
