"""Input formats: one module with one `Importer` per format, registered in the entry-point group `edgepack.importers`.

`registry` finds the importer of a file. A further format is one class derived from `base.Importer` and one entry point,
in this package or in another one.
"""
