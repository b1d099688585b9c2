"""Training: makes networks out of studies."""
