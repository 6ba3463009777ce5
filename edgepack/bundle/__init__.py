"""What a build hands over: a folder with the model, golden vectors, loader sources and a manifest of it all."""
