"""Loader languages: one module and one template folder each, found through the registry."""
