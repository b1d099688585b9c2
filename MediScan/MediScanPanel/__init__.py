"""The sections of MediScan's panel: widgets and wiring, one section a file."""
