"""Logits to labels, scores, intervals and plots, in numpy: nothing here imports torch.

Faces: `metrics.score` and the registry `metrics.METRICS`, `decisions.Decision`, `bootstrap.resample`,
`significance.contrast`, `plots`.
"""
