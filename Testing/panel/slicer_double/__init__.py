"""A stand-in for the application around the module: real Qt widgets and real MRML, and strict where it must pretend.

3D Slicer's own panel classes need the application. Here its Python bridge, its widgets, its parameter nodes and its
module base classes are made again on PySide6 and slicer-core, only as far as the module uses them. Whatever the module
touches beyond that raises, so that nothing passes here by silence.
"""
