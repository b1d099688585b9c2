"""Evaluation: how good a model is, on what, compared with what, and how sure that is. One concept a file."""
