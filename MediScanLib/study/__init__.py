"""Study: the image and the clinical record, from files to values."""
