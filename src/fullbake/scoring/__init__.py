"""Scores folders of files, file by file: in this process, in several, or on a Ray cluster. Its face is `predict_shards`.

A file of the input is a shard. Each becomes a file of its own in the output, so that a run that was stopped goes on
where it was, and a worker that dies costs one shard.
"""
