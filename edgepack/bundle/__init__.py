"""The output of a build: a folder with the model, golden vectors, loader sources and a manifest."""
