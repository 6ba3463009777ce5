"""Results of a model's outputs; the modules are copied into the Python packages of bundles."""
