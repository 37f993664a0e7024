"""Recipes x learning rates x seeds on the same rows: a leaderboard, a verdict and a page.

Face: `compare.compare`.
"""
