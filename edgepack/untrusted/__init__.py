"""Files from strangers: what a model file may contain, and private copies that hold exactly what was examined."""
