"""The HTTP and WebSocket edge: one FastAPI application per Ray Serve application."""
