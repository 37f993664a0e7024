"""Bridges to other libraries: scikit-learn, trackers of runs, MLflow, model hubs.

Each is loaded only by whoever imports it.
"""
