"""Report: predictions as JSON, CSV and pictures."""
