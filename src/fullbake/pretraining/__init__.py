"""Raw text to a better base (masked words and sentence pairs), and what that base forgets.

Other folders use `stage.further_pretrain`, `stage.with_further_pretraining`, `forgetting.probe`,
`forgetting.open_probe` and `pilot.run_pilot`. Text flows through `documents`, `corpus_tokens`, `corpus`, `examples`,
`data_loader` and `mlm` to `run`, which trains.
"""
