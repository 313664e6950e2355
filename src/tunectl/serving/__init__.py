"""The inference server, from the HTTP socket to the inference log.

``generation_task.py`` generates the answers of a request and streams them; the engines (batching, KV cache) are in
``backends/engines``.
"""
