"""Bundles as artifacts of an OCI registry: one layer for each file, so that a device fetches only what changed."""
