"""A recipe to a finished classifier, and what one does with it: evaluate, predict, save, load.

Faces: `adapt.adapt`, `model.Classifier`, `predict.evaluate` and `predict_file`.
"""
