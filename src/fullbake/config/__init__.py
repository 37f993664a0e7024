"""The recipe: its fields, the words they take, and the kinds of problem it may describe.

Other folders use `recipe.Recipe`, the sections in `sections` and `pretraining`, and `problems.Problem`.
"""
