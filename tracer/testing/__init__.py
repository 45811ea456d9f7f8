"""Conversations, clouds and whole creations as packets, for tests."""
