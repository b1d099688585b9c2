"""Validation of a model and of its explanations: do they hold, agree, and survive damage. One concept a file."""
