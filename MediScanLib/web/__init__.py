"""The page in the browser: Slicer's own slice views through trame, with the same `scene` code as the panel.

Two kinds of processes: `gateway` lets people in, and `user_process`, one for each browser, holds one MRML scene.
Predictions are made by the REST server, so that a model is in memory once.
"""
