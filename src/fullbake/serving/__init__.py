"""HTTP: `fullbake serve` puts classifiers behind the protocols of other servers, and a page to try them on.

Its face is `server.serve`. Below it: `app` (the routes), `service` (models and their queues), `dialects` (one module
for each protocol), `door` (who may come in).
"""
