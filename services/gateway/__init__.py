"""WebSocket and HTTP edge."""
