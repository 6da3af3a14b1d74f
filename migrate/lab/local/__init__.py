"""Hosts made of namespaces."""
