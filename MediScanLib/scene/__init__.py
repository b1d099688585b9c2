"""Scene: shows predictions in MRML. The only room that imports vtk or slicer."""
