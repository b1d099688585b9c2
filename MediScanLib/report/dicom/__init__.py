"""Predictions as DICOM objects: structured report, segmentation, parametric map and secondary capture."""
