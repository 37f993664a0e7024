"""Reads files as labeled texts, splits them into training, validation and test rows, and reports facts about them.

Other folders use `dataset.read_dataset` and `Dataset`, `splits.divide`, `files.open_table` and `open_writer`,
`inspection.inspect_file`. Each file format is one file (`delimited`, `jsonl`, `arrow`) and one line in `files.FORMATS`.
"""
