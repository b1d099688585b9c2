"""Prediction: from a study and a network to findings, heat maps and certainty."""
