"""The library: the commands as functions that take models and samples in memory as well, and return objects.

`import edgepack` has these functions as its attributes; each is imported when it is used first.
"""
