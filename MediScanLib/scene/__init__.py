"""Study and prediction in a MRML scene: the only room that imports VTK or Slicer.

Everything here runs the same in 3D Slicer and on its libraries installed by pip (`slicer-core`).
"""
