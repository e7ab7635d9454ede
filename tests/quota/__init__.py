"""The quota that several processes share."""
