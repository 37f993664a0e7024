"""Training in one loop: fine-tuning, heads on frozen features, and what validation selects among them.

Faces: `loop.fit`, `job.Job`, `strategies.strategy_for`, `selection.train_best`.
"""
