"""Images to try the module on."""

import json
from pathlib import Path

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _

RESOURCES = Path(__file__).resolve().parent.parent / "Resources"
CATEGORY = "MediScan"


def registerSampleData() -> None:
    """Add a phantom, which needs no download, and a few public radiographs to the Sample Data module."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, title=_("MediScan"))
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="MediScanPhantom",
        uris="phantom",  # made by code; the name stands where others have an address
        fileNames="MediScanPhantom.nrrd",
        nodeNames="MediScanPhantom",
        thumbnailFileName=str(RESOURCES / "Icons" / "MediScan.png"),
        customDownloader=loadPhantom,
    )
    for sample in json.loads((RESOURCES / "SampleData" / "samples.json").read_text(encoding="utf-8")):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=f"{sample['name']} ({sample['credit']}, {sample['license']})",
            uris=sample["url"],
            fileNames=sample["file"],
            nodeNames=sample["name"],
            checksums=f"SHA256:{sample['sha256']}",
            loadFileType="VolumeFile",
            # The names hold numbers, which would make the reader look for more slices beside the file.
            loadFileProperties={"singleFile": True},
        )


def loadPhantom(source: object = None) -> vtkMRMLScalarVolumeNode:
    """Make a phantom chest radiograph, show it and return its volume node; `source` is what Sample Data passes."""
    from MediScanLib.scene.volumes import volume_from_image
    from MediScanLib.study.phantom import make_phantom

    node = volume_from_image(slicer.mrmlScene, make_phantom(), slicer.mrmlScene.GenerateUniqueName("MediScanPhantom"))
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node
