"""Scores folders of files, file by file: here, in several processes, or on a Ray cluster. Its face: `predict_shards`.

A file of the input is a shard. Each becomes a file of its own in the output, so that a run that was stopped continues
where it was, and a worker that dies costs one shard.
"""
