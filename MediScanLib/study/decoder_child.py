"""The process in which compressed pixels are decoded; `python -m MediScanLib.study.decoder_child FOLDER`.

FOLDER is where it may write. It reads requests from standard input and answers on standard output until the input
ends. A request is a JSON header with `memory` (bytes that it may allocate) and a DICOM file, each after its length as
8 bytes, little endian. The answer is a JSON header, `{"shape": ..., "dtype": ...}` or
`{"error": "memory" | "decoder"}`, and the array's bytes. Neither side ever unpickles anything.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import IO, Any

import SimpleITK

Answer = tuple[dict[str, Any], bytes]


def read_block(stream: IO[bytes]) -> bytes | None:
    """A length-prefixed block, None at the end of the stream."""
    prefix = stream.read(8)
    if len(prefix) < 8:
        return None
    (length,) = struct.unpack("<Q", prefix)
    block = stream.read(length)
    return block if len(block) == length else None


def write_blocks(stream: IO[bytes], *blocks: bytes) -> None:
    """Length-prefixed blocks, flushed."""
    for block in blocks:
        stream.write(struct.pack("<Q", len(block)))
        stream.write(block)
    stream.flush()


def limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes on top of what it has; nothing where the system has no such limit."""
    if sys.platform != "linux":  # Windows has no setrlimit, macOS does not honor it
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, hard))


def decode(content: bytes, folder: Path) -> Answer:
    """Decode one DICOM file with SimpleITK's GDCM."""
    path = folder / "frame.dcm"
    path.write_bytes(content)
    try:
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        array = SimpleITK.GetArrayFromImage(reader.Execute())
    except MemoryError:
        return {"error": "memory"}, b""
    except RuntimeError as error:
        return {"error": "memory" if "alloc" in str(error) else "decoder"}, b""
    finally:
        path.unlink()
    return {"shape": array.shape, "dtype": array.dtype.str}, array.tobytes()


def main() -> None:
    """Answer requests until standard input ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # the decoders print; nothing of it may get into the answers
        os.dup2(silence, descriptor)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    folder = Path(sys.argv[1])
    while (header := read_block(requests)) is not None and (content := read_block(requests)) is not None:
        limit_memory(int(json.loads(header)["memory"]))
        try:
            answer, data = decode(content, folder)
        except MemoryError:
            answer, data = {"error": "memory"}, b""
        write_blocks(answers, json.dumps(answer).encode(), data)
    os.chdir(folder.parent)  # Windows removes no folder that somebody is in
    shutil.rmtree(folder, ignore_errors=True)  # the parent died without doing so


if __name__ == "__main__":
    main()
