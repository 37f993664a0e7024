"""Raw text to a better base (masked LM and sentence pairs), and what that base forgets.

Faces: `stage.further_pretrain`, `forgetting.probe`, `pilot.run_pilot`.
"""
