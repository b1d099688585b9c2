"""Run the tests of this folder and MediScan's self test inside Slicer, then leave with 0 or 1."""

import sys
import unittest
from pathlib import Path

import slicer

sys.path.insert(0, str(Path(__file__).resolve().parent))
loader = unittest.TestLoader()
suite = unittest.TestSuite(
    [loader.loadTestsFromName(name) for name in ("MediScanModuleTest", "MediScanPanelTest", "MediScan.MediScanTest")]
)
result = unittest.TextTestRunner(verbosity=2).run(suite)
slicer.util.exit(slicer.util.EXIT_SUCCESS if result.wasSuccessful() else slicer.util.EXIT_FAILURE)
