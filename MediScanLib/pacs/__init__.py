"""A node of a hospital's network: studies come in by C-STORE or DICOMweb, results go back the same ways."""
