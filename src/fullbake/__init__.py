"""fullbake adapts BERT-family encoders to text classification."""

__version__ = "0.1.0"
