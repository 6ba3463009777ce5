"""Projects: many models for many targets, described in one file, built as one graph of shared work."""
