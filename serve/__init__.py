"""Serving: signals, feed, hub, API."""
