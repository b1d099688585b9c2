"""A node among peers that fail: on the side that sends to it, and on the side that it sends to."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nodes import MODEL, until
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import AllTransferSyntaxes, ComputedRadiographyImageStorage, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find
from pynetdicom.sop_class import Verification
from serving import free_port

from dicom_files import PATIENT, write_series, write_study

FULL, REFUSED = 0xA700, 0xC000
CLASSES = [ComputedRadiographyImageStorage, CTImageStorage, Verification]


class Peer:
    """An archive that answers as `answer` says, and remembers every object that it stored."""

    def __init__(self, answer: Callable[[int, Any], int] | None = None, *, port: int = 0, finds: bool = True) -> None:
        self.stored: list[Dataset] = []
        self.asked = 0
        self._answer = answer or (lambda count, event: 0)
        entity = AE("ARCHIVE")
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
        if finds:
            entity.add_supported_context(Find)
        self._server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)],
        )
        self.port = self._server.server_address[1]

    @property
    def destination(self) -> dict:
        return {"kind": "c-store", "host": "127.0.0.1", "port": self.port, "ae_title": "ARCHIVE", "timeout_s": 5}

    @property
    def counts(self) -> Counter:
        """How often each object was stored."""
        return Counter(str(dataset.SOPInstanceUID) for dataset in self.stored)

    def close(self) -> None:
        self._server.shutdown()

    def _store(self, event) -> int:
        self.asked += 1
        dataset = event.dataset
        status = self._answer(self.asked, event)
        if status == 0:
            self.stored.append(dataset)
        return status

    def _find(self, event):
        wanted = str(event.identifier.SOPInstanceUID)
        if wanted in self.counts:
            found = Dataset()
            found.QueryRetrieveLevel, found.SOPInstanceUID = "IMAGE", wanted
            yield 0xFF00, found
        yield 0x0000, None


@pytest.fixture
def make_peer():
    peers: list[Peer] = []

    def make(*arguments, **options) -> Peer:
        peers.append(Peer(*arguments, **options))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


class Sender:
    """Somebody who sends to a node."""

    def __init__(self, port: int, *, title: str = "SENDER", called: str = "MEDISCAN") -> None:
        entity = AE(title)
        for uid in CLASSES:
            entity.add_requested_context(uid, ExplicitVRLittleEndian)
        self.association = entity.associate("127.0.0.1", port, ae_title=called)

    def send(self, paths: Sequence[Path]) -> list[int]:
        return [int(self.association.send_c_store(dcmread(path, force=True)).Status) for path in paths]


def send(port: int, *paths: Path, **options) -> list[int]:
    sender = Sender(port, **options)
    found = sender.send(paths)
    sender.association.release()
    return found


def radiograph(folder: Path, number: int = 1, **elements) -> Path:
    root = f"1.2.826.0.1.3680043.8.498.79.{number}"
    uids = {"SOPInstanceUID": f"{root}.1", "SeriesInstanceUID": f"{root}.2", "StudyInstanceUID": f"{root}.3"}
    pixels = np.random.default_rng(number).integers(0, 255, (48, 40), np.uint8)
    return write_study(folder / f"{number}.dcm", pixels, **{**uids, **elements})


def slices(folder: Path, count: int = 6) -> list[Path]:
    volume = np.random.default_rng(1).normal(-500, 200, (count, 32, 32))
    places = [(0, 0, 3 * index) for index in range(count)]
    write_series(folder, volume, places, StudyInstanceUID="1.2.826.0.1.3680043.8.498.80.1")
    return sorted(folder.iterdir())


# What a destination can do


def test_a_full_archive_gets_the_rest_later_and_nothing_twice(make_peer, make_settings, start_node, tmp_path, caplog):
    peer = make_peer(lambda count, _: FULL if 2 <= count <= 3 else 0)
    running = start_node(make_settings({"pacs": peer.destination}))
    assert send(running.port, radiograph(tmp_path)) == [0]
    assert until(running.is_idle) and len(peer.stored) == 3
    assert set(peer.counts.values()) == {1}
    assert peer.asked == 5  # of the first try one was stored and one refused; another refusal; then the other two
    assert "pacs: has no room (status A700)" in caplog.text


def test_an_archive_that_stores_and_then_breaks_off_is_asked_before_anything_is_sent_again(
    make_peer, make_settings, start_node, tmp_path
):
    def answer(count, event):
        if count == 2:  # stored, but its answer never arrives
            peer.stored.append(event.dataset)
            event.assoc.abort()
            return REFUSED
        return 0

    peer = make_peer(answer)
    running = start_node(make_settings({"pacs": peer.destination}))
    send(running.port, radiograph(tmp_path))
    assert until(running.is_idle)
    assert len(peer.counts) == 3 and set(peer.counts.values()) == {1}


def test_an_archive_that_cannot_be_asked_gets_a_doubtful_object_under_the_same_uid(
    make_peer, make_settings, start_node, tmp_path
):
    def answer(count, event):
        if count == 2:
            peer.stored.append(event.dataset)
            event.assoc.abort()
            return REFUSED
        return 0

    peer = make_peer(answer, finds=False)
    running = start_node(make_settings({"pacs": peer.destination}))
    send(running.port, radiograph(tmp_path))
    assert until(running.is_idle)
    assert sorted(peer.counts.values()) == [1, 1, 2]  # the archive replaces what it has, as the UID is the same


def test_a_refusal_for_good_becomes_a_dead_letter_that_can_be_tried_again(
    make_peer, make_settings, start_node, tmp_path
):
    accepting = threading.Event()
    peer = make_peer(lambda *_: 0 if accepting.is_set() else REFUSED)
    running = start_node(
        make_settings({"pacs": peer.destination}, retry={"first_s": 0.1, "most_s": 0.2, "attempts": 3})
    )
    send(running.port, radiograph(tmp_path))
    letters = until(lambda: running.queue.dead_letters())
    assert [(letter.destination, letter.attempts, letter.can_retry) for letter in letters] == [("pacs", 3, True)]
    assert "refused an object (status C000)" in letters[0].message
    assert peer.asked == 3
    accepting.set()
    assert running.queue.retry([]) == 1
    assert until(lambda: not running.queue.dead_letters() and running.is_idle())
    assert len(peer.stored) == 3


def test_one_archive_that_fails_holds_up_no_other(make_peer, make_settings, start_node, tmp_path):
    good, away = make_peer(), {"kind": "c-store", "host": "127.0.0.1", "port": free_port(), "ae_title": "AWAY"}
    settings = make_settings({"good": good.destination, "away": away})
    running = start_node(settings)
    send(running.port, radiograph(tmp_path))
    assert until(lambda: len(good.stored) == 3)
    assert not running.is_idle() and not running.queue.dead_letters()
    late = make_peer(port=away["port"])  # not reachable is no refusal: it waits for as long as it takes
    assert until(running.is_idle)
    assert good.counts == late.counts


def test_the_same_result_goes_to_an_archive_once_however_often_the_image_comes(
    make_peer, make_settings, start_node, tmp_path
):
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}))
    for _ in range(3):
        send(running.port, radiograph(tmp_path))
        assert until(running.is_idle)
        time.sleep(0.7)  # longer than a study has to be quiet
    assert sorted(peer.counts.values()) == [1, 1, 1] and peer.asked == 3


def test_results_that_come_back_are_not_predicted(make_peer, make_settings, start_node, tmp_path, caplog):
    """Two nodes that send to each other, as a wrong route would have it: it ends at once."""
    caplog.set_level("INFO", "mediscan.pacs")
    port = free_port()
    back = {"kind": "c-store", "host": "127.0.0.1", "port": port, "ae_title": "MEDISCAN"}
    rules = [{"name": "all", "model": MODEL, "secondary_captures": True, "send_to": "back"}]
    running = start_node(make_settings({"back": back}, listen={"port": port}, rules=rules))
    send(running.port, radiograph(tmp_path))
    assert until(running.is_idle)
    time.sleep(1)
    assert running.queue.counts().items == {"done": 1}
    assert caplog.text.count("a result of MediScan came back") == 3


class WebPeer:
    """A STOW-RS service whose answers are given, one after the other; the last one stays."""

    def __init__(self, *answers: tuple[int, bytes] | None) -> None:
        peer, self.posts = self, 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                while self.headers.get("Transfer-Encoding") == "chunked":
                    size = int(self.rfile.readline(), 16)
                    self.rfile.read(size + 2)
                    if not size:
                        break
                answer = answers[min(peer.posts, len(answers) - 1)]
                peer.posts += 1
                if answer is None:  # took it all, and says nothing
                    self.close_connection = True
                    return
                self._say(*answer)

            def do_GET(self) -> None:
                self._say(200, b"[]")

            def _say(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(content)))
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.destination = {"kind": "stow-rs", "url": f"http://127.0.0.1:{self._server.server_port}/dicom-web"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


STORED = 200, b'{"00081199": {"vr": "SQ", "Value": []}}'
FAILED = 200, json.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (FAILED, "web: has no room (reason A700)"),
        ((409, b"{}"), "web: answered with an error (409)"),
        ((507, b""), "web: has no room, or takes nothing so large (507)"),
        ((503, b"busy"), "web: is busy or starting (503)"),
        ((401, b""), "web: does not let MediScan in (401)"),
        ((302, b""), "web: sends elsewhere"),
        ((200, b"<html>Welcome</html>"), "web: its answer is not understood"),
        (None, "web: cannot be reached, or ended the connection"),
    ],
)
def test_a_web_service_that_fails_first_gets_all_in_the_end(make_settings, start_node, tmp_path, caplog, answer, said):
    peer = WebPeer(answer, STORED)
    try:
        running = start_node(make_settings({"web": peer.destination}))
        send(running.port, radiograph(tmp_path))
        assert until(running.is_idle)
        assert peer.posts == 4  # one that failed and three objects
        assert said in caplog.text
        assert running.queue.counts().deliveries == {"web": {"done": 1}}
        assert "1.2.826" not in caplog.text  # requests puts UIDs into its messages
    finally:
        peer.close()


# What a sender can do


def test_half_a_series_is_waited_for_then_predicted_and_predicted_anew_with_the_rest(
    make_peer, make_settings, start_node, tmp_path, caplog
):
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}))
    files = slices(tmp_path / "ct")
    sender = Sender(running.port)
    assert sender.send(files[:3]) == [0, 0, 0]
    sender.association.abort()
    assert until(lambda: [one for one in peer.stored if one.Modality == "SR"])
    assert "its sender broke off, going on with 3 images" in caplog.text
    assert send(running.port, *files[3:]) == [0, 0, 0]
    assert until(lambda: len([one for one in peer.stored if one.Modality == "SR"]) == 2)
    assert until(running.is_idle)
    references = [_referenced(one) for one in peer.stored if one.Modality == "SR"]
    assert sorted(map(len, references)) == [3, 6]


def _referenced(report: Dataset) -> set[str]:
    images = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    return {
        str(one.ReferencedSOPInstanceUID)
        for series in images
        for one in series.ReferencedSOPSequence
        if one.ReferencedSOPClassUID == CTImageStorage
    }


def test_a_study_that_grows_while_it_is_predicted_ends_whole(make_peer, make_settings, start_node, tmp_path):
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}, study={"quiet_s": 0.05}))
    files = slices(tmp_path / "ct", 12)
    for path in files:  # each after a pause that is long enough to be taken for the end
        send(running.port, path)
        time.sleep(0.15)
    assert until(
        lambda: running.is_idle() and any(len(_referenced(one)) == 12 for one in peer.stored if one.Modality == "SR")
    )
    assert set(peer.counts.values()) == {1}


def test_an_image_that_changes_under_its_uid_is_predicted_anew(make_peer, make_settings, start_node, tmp_path):
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}))
    first = radiograph(tmp_path)
    send(running.port, first)
    assert until(lambda: running.is_idle() and len(peer.stored) == 3)
    dataset = dcmread(first)
    dataset.PixelData = bytes(255 - value for value in dataset.PixelData)
    dataset.save_as(first)
    send(running.port, first)
    assert until(lambda: running.is_idle() and len(peer.stored) == 6)
    assert len(peer.counts) == 6


def test_a_full_disk_here_is_told_to_the_sender_who_keeps_the_image(
    make_peer, make_settings, start_node, tmp_path, monkeypatch, caplog
):
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}, limits={"free_mb": 10}))
    usage = type("usage", (), {"free": 0})
    with monkeypatch.context() as patch:
        patch.setattr("MediScanLib.pacs.folder.shutil.disk_usage", lambda _: usage)
        assert send(running.port, radiograph(tmp_path)) == [FULL]
        assert "nearly full" in caplog.text
    assert send(running.port, radiograph(tmp_path)) == [0]
    assert until(lambda: len(peer.stored) == 3)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_image_without_a_uid_is_refused_and_says_which(
    make_peer, make_settings, start_node, tmp_path, caplog, keyword
):
    running = start_node(make_settings({"pacs": make_peer().destination}))
    assert send(running.port, radiograph(tmp_path, **{keyword: None})) == [0xA900]
    assert f"has no valid {keyword}" in caplog.text
    assert running.queue.counts().items == {}


def test_without_patient_id_results_are_filed_by_their_study(make_peer, make_settings, start_node, tmp_path, caplog):
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}))
    assert send(running.port, radiograph(tmp_path, PatientID=None)) == [0]
    assert until(lambda: len(peer.stored) == 3)
    assert {one.PatientID for one in peer.stored} == {""}
    assert {one.StudyInstanceUID for one in peer.stored} == {"1.2.826.0.1.3680043.8.498.79.1.3"}
    assert "has no Patient ID" in caplog.text


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "Wáng^Xiǎo=王^小"),
        ("ISO_IR 100", "Müller^Jürgen"),
    ],
)
def test_names_in_other_scripts_arrive_whole_and_stay_out_of_the_log(
    make_peer, make_settings, start_node, tmp_path, caplog, charset, name
):
    caplog.set_level("DEBUG")
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}))
    path = radiograph(tmp_path, SpecificCharacterSet=charset, PatientName=name)
    assert send(running.port, path) == [0]
    assert until(lambda: len(peer.stored) == 3)
    assert {str(one.PatientName) for one in peer.stored} == {name}
    for part in [*name.replace("=", "^").split("^"), *PATIENT.values()]:
        ours = [record.getMessage() for record in caplog.records if record.name == "mediscan.pacs"]
        assert ours and (len(part) == 1 or part not in "\n".join(ours))


def test_a_clock_that_runs_ahead_there_changes_nothing(make_peer, make_settings, start_node, tmp_path):
    peer = make_peer()
    running = start_node(make_settings({"pacs": peer.destination}))
    assert send(running.port, radiograph(tmp_path, StudyDate="20991231", StudyTime="235959")) == [0]
    assert until(lambda: len(peer.stored) == 3)
    assert {one.StudyDate for one in peer.stored} == {"20991231"}


def test_only_those_who_are_named_may_call(make_peer, make_settings, start_node, tmp_path, caplog):
    settings = make_settings({"pacs": make_peer().destination}, listen={"port": 0, "callers": ["SCANNER"]})
    running = start_node(settings)
    assert Sender(running.port, title="STRANGER").association.is_rejected
    assert Sender(running.port, title="SCANNER", called="OTHER").association.is_rejected
    assert until(lambda: "a connection was refused" in caplog.text)
    assert send(running.port, radiograph(tmp_path), title="SCANNER") == [0]


def test_an_object_without_end_is_cut_off_and_the_next_one_is_taken(
    make_peer, make_settings, start_node, tmp_path, caplog
):
    settings = make_settings({"pacs": make_peer().destination}, limits={"free_mb": 0, "instance_mb": 1})
    running = start_node(settings)
    huge = dcmread(radiograph(tmp_path, 2))
    huge.Rows = huge.Columns = 2400
    huge.PixelData = bytes(2400 * 2400)
    sender = Sender(running.port)
    with suppress(RuntimeError):  # where it is cut off even before all was sent
        assert "Status" not in sender.association.send_c_store(huge)
    assert "larger than limits.instance_mb" in caplog.text
    assert send(running.port, radiograph(tmp_path)) == [0]


def test_rubbish_under_a_good_name_is_refused(make_peer, make_settings, start_node, tmp_path, monkeypatch):
    running = start_node(make_settings({"pacs": make_peer().destination}))
    good = radiograph(tmp_path)
    rubbish = tmp_path / "rubbish.dcm"
    with rubbish.open("wb") as stream:
        stream.write(bytes(128) + b"DICM")
        write_file_meta_info(stream, dcmread(good).file_meta)
        stream.write(b"\x08\x00\x05\x00\xff\xff" * 50)
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)  # a file goes as it is
    association = Sender(running.port).association
    assert association.send_c_store(rubbish).Status in (0xA900, 0xC000)
    assert association.send_c_store(good).Status == 0  # the association lives on
    association.release()


@pytest.fixture
def certificate(tmp_path) -> tuple[str, str]:
    """A certificate for this machine that signs itself, and its key."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return certificate, key


def test_both_sides_show_certificates(make_settings, start_node, tmp_path, certificate):
    """A node that sends to itself over TLS: it takes its own results, and leaves them alone."""
    port = free_port()
    tls = {"certificate": certificate[0], "key": certificate[1], "ca_file": certificate[0]}
    back = {"kind": "c-store", "host": "localhost", "port": port, "ae_title": "MEDISCAN", "tls": tls}
    running = start_node(make_settings({"back": back}, listen={"port": port, "tls": tls}))
    assert not Sender(port).association.is_established  # without encryption nobody gets in
    context = ssl.create_default_context(cafile=certificate[0])
    stranger = AE("SENDER")
    stranger.add_requested_context(Verification)
    encrypted = {"ae_title": "MEDISCAN", "tls_args": (context, "localhost")}
    assert not stranger.associate("localhost", port, **encrypted).is_established
    context.load_cert_chain(*certificate)
    entity = AE("SENDER")
    entity.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("localhost", port, **encrypted)
    assert association.send_c_store(dcmread(radiograph(tmp_path))).Status == 0
    association.release()
    assert until(running.is_idle)
    assert running.queue.counts().deliveries == {"back": {"done": 1}}
