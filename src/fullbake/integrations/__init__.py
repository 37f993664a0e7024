"""Bridges to other libraries: scikit-learn. Each is loaded only by whoever imports it."""
