"""Files to labelled texts, divided into training, validation and test rows; and what should be known of them.

Faces: `dataset.read_dataset` and `Dataset`, `splits.divide`, `files.open_table`, `inspection.inspect_file`.
"""
