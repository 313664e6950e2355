"""HTTP server of monitor and retrain controller, limits of HTTP heads, and calls to an ASGI application."""
