"""Files, hashes, caches, devices, messages and errors: what every other folder may use.

Faces: `errors` (everything that is raised on purpose), `console` (`say`, `warn`, `bar`, `format_*`), `storage`
(`staged` and the sealed folders), `cache.Cache`, `hashing.fingerprint`, `runtime` (the machine), `rng` (repeatable
random numbers).
"""
