"""The recipe: its fields, their words, and the kinds of problem it may describe.

Faces: `recipe.Recipe`, the sections in `sections` and `pretraining`, `problems.Problem`.
"""
