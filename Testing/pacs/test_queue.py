"""What a node remembers: a real SQLite file, and a machine that tries its steps in any order."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from MediScanLib.config import InferenceConfig
from MediScanLib.pacs.arrivals import ArrivalStore
from MediScanLib.pacs.backoff import wait_s
from MediScanLib.pacs.completeness import Arrival, is_complete
from MediScanLib.pacs.connections import Connections
from MediScanLib.pacs.database import Database
from MediScanLib.pacs.deliveries import DeliveryStore
from MediScanLib.pacs.facts import Facts
from MediScanLib.pacs.folder import NodeFolder
from MediScanLib.pacs.housekeeping import Housekeeper
from MediScanLib.pacs.items import ItemStore
from MediScanLib.pacs.plans import make_plans
from MediScanLib.pacs.problems import DiskFullError, PacsError
from MediScanLib.pacs.queue import Queue
from MediScanLib.pacs.rules import Rule
from MediScanLib.pacs.settings import KeepSettings, StudySettings

AT_ONCE = StudySettings(quiet_s=0, broken_s=0, open_s=0)
RULE = Rule.model_validate({"name": "all", "model": "toy", "send_to": ["a", "b"]})
MODELS = {"toy": "0" * 64}


def facts(study: str = "1", uid: str = "1", *, is_slice: bool = False) -> Facts:
    return Facts(f"1.{study}", f"2.{study}", f"3.{study}.{uid}", "1.2.3", "CR", "", "", "", "", "", True, is_slice)


class Stores:
    """All of a node's stores on one folder."""

    def __init__(self, root: Path) -> None:
        self.folder = NodeFolder(root)
        self.database = Database(self.folder.database)
        self.arrivals = ArrivalStore(self.database, 100)
        self.items = ItemStore(self.database)
        self.deliveries = DeliveryStore(self.database)

    def add(self, one: Facts, digest: str = "d") -> bool:
        file = self.folder.root / f"studies/{one.study_uid}/{one.uid}-{digest}.dcm"
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(b"x")
        return self.arrivals.add(one, digest, file.relative_to(self.folder.root).as_posix(), 1, "ae:X")

    def plan(self) -> tuple[int, int]:
        new = known = 0
        for study in self.arrivals.due(AT_ONCE):
            found = make_plans(self.arrivals.instances(study.uid), [RULE], MODELS, InferenceConfig())
            more = self.items.put(study, found)
            new, known = new + more[0], known + more[1]
        return new, known

    def finish(self, count: int = 2) -> str:
        item = self.items.claim()
        assert item is not None
        objects = [(f"9.{item.id}.{number}", f"results/{item.id}/{number}.dcm") for number in range(count)]
        assert self.items.finish(item, objects)
        return item.id

    def close(self) -> None:
        self.database.close()


@pytest.fixture
def stores(tmp_path):
    made = Stores(tmp_path / "node")
    yield made
    made.close()


def test_the_same_image_twice_is_one_prediction(stores):
    assert stores.add(facts()) and not stores.add(facts())
    assert stores.plan() == (1, 0)
    assert not stores.add(facts())
    assert stores.plan() == (0, 0)


def test_other_content_under_the_same_uid_is_another_prediction(stores):
    stores.add(facts(), "old")
    stores.plan()
    assert stores.add(facts(), "new")
    assert stores.plan() == (1, 0)
    assert stores.add(facts(), "old")  # and back: known, and done before
    assert stores.plan() == (0, 1)


def test_a_series_that_grows_replaces_what_is_under_way(stores):
    stores.add(facts(uid="1", is_slice=True))
    stores.plan()
    item = stores.items.claim()
    stores.add(facts(uid="2", is_slice=True))
    assert stores.plan() == (1, 0)
    assert not stores.items.finish(item, [("9.1", "x")])  # nothing of the half is sent
    whole = stores.items.claim()
    assert len(whole.files) == 2


def test_a_radiograph_more_leaves_the_other_one_alone(stores):
    stores.add(facts(uid="1"))
    stores.plan()
    stores.finish()
    stores.add(facts(uid="2"))
    assert stores.plan() == (1, 1)


def test_what_was_under_way_begins_again_after_a_start(stores):
    stores.add(facts())
    stores.plan()
    assert stores.items.claim().attempt == 1
    assert stores.items.claim() is None
    stores.items.recover()
    assert stores.items.claim().attempt == 2


def test_a_delivery_holds_what_is_not_there_yet_and_says_what_is_in_doubt(stores):
    stores.add(facts())
    stores.plan()
    stores.finish(3)
    delivery = stores.deliveries.next("a")
    stores.deliveries.begin(delivery)
    first, second, third = (one.uid for one in delivery.objects)
    stores.deliveries.settle(delivery, {first}, {second})
    again = stores.deliveries.next("a")
    assert [(one.uid, one.is_uncertain) for one in again.objects] == [(second, True), (third, False)]
    assert len(stores.deliveries.next("b").objects) == 3  # the other destination has nothing to do with it


def test_an_item_ends_with_its_last_delivery(stores):
    stores.add(facts())
    stores.plan()
    item = stores.finish()
    queue = Queue(stores.folder.root)
    delivery = stores.deliveries.next("a")
    stores.deliveries.done(delivery, {one.uid for one in delivery.objects})
    assert queue.counts().items == {"sending": 1} and not queue.counts().is_idle
    stores.deliveries.fail(stores.deliveries.next("b"), "refused", "no", None)
    assert queue.counts().items == {"dead": 1}
    (letter,) = queue.dead_letters()
    assert (letter.item, letter.destination, letter.message, letter.rule) == (item, "b", "no", "all")
    assert queue.retry([item]) == 1
    assert stores.deliveries.next("a") is None and stores.deliveries.next("b") is not None
    queue.close()


def test_dead_letters_can_be_retried_or_dropped_by_name_only_where_they_are_some(stores):
    stores.add(facts())
    stores.plan()
    item = stores.items.claim()
    stores.items.fail(item, "corrupt", "cannot be read", None)
    queue = Queue(stores.folder.root)
    with pytest.raises(PacsError, match="no dead letter"):
        queue.retry(["nonsense"])
    assert queue.retry([]) == 1 and stores.items.claim().attempt == 1
    stores.items.fail(item, "corrupt", "cannot be read", None)
    assert queue.drop([item.id]) == 1 and queue.dead_letters() == []
    queue.close()


def test_files_go_after_a_while_and_the_memory_of_them_stays(stores):
    stores.add(facts())
    stores.plan()
    stores.finish()
    for name in RULE.send_to:
        delivery = stores.deliveries.next(name)
        stores.deliveries.done(delivery, {one.uid for one in delivery.objects})
    keeper = Housekeeper(stores.database, stores.folder, KeepSettings(days=1))
    assert keeper.tidy() == 0 and list(stores.folder.studies.rglob("*.dcm"))
    keeper = Housekeeper(stores.database, stores.folder, KeepSettings(days=0))
    time.sleep(0.01)
    assert keeper.tidy() == 1
    assert not stores.arrivals.instances("1.1")[0].file
    assert not stores.add(facts())  # it is known, so nothing is predicted or sent again
    assert stores.plan() == (0, 1)


def test_a_series_whose_files_are_gone_is_predicted_once_all_of_it_is_sent_again(stores):
    stores.add(facts(uid="1", is_slice=True))
    stores.plan()
    stores.items.fail(stores.items.claim(), "corrupt", "cannot be read", None)
    time.sleep(0.01)
    Housekeeper(stores.database, stores.folder, KeepSettings(days=0, dead_days=0)).tidy()
    stores.add(facts(uid="2", is_slice=True))
    assert stores.plan() == (1, 0)
    queue = Queue(stores.folder.root)
    gone = queue.dead_letters()[-1]
    assert "sent again" in gone.message and not gone.can_retry
    stores.add(facts(uid="1", is_slice=True))
    assert stores.plan() == (0, 1)
    item = stores.items.claim()
    assert item.id == gone.item and len(item.files) == 2
    queue.close()


def test_a_dead_letter_keeps_its_files_longer(stores):
    stores.add(facts())
    stores.plan()
    stores.items.fail(stores.items.claim(), "corrupt", "cannot be read", None)
    time.sleep(0.01)
    assert Housekeeper(stores.database, stores.folder, KeepSettings(days=0, dead_days=30)).tidy() == 0
    assert Housekeeper(stores.database, stores.folder, KeepSettings(days=0, dead_days=0)).tidy() == 1
    queue = Queue(stores.folder.root)
    (letter,) = queue.dead_letters()
    assert not letter.can_retry and queue.retry([]) == 0
    with pytest.raises(PacsError, match="deleted already"):
        queue.retry([letter.item])
    queue.close()


def test_too_many_images_of_a_study_are_refused(stores):
    small = ArrivalStore(stores.database, 2)
    stores.add(facts(uid="1"))
    stores.add(facts(uid="2"))
    with pytest.raises(PacsError, match=r"limits\.instances"):
        small.check_room(facts(uid="3"), "d")
    small.check_room(facts(uid="2"), "d")  # what is here may come again


def test_a_clock_that_was_set_back_holds_nothing_up(stores, monkeypatch):
    stores.add(facts())
    later = time.time() + 400 * 86400
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: later)
        stores.add(facts("2"))
        stores.plan()
        item = stores.items.claim()
        stores.items.fail(item, "engine", "try again", later + 60)
    assert {stores.items.claim().id, stores.items.claim().id} >= {item.id}
    assert is_complete(Arrival(later, False, False), StudySettings(), time.time())


def test_completeness():
    settings = StudySettings(quiet_s=10, broken_s=120, open_s=300)
    for arrival, wait in (
        (Arrival(1000, is_open=False, is_broken=False), 10),
        (Arrival(1000, is_open=False, is_broken=True), 120),
        (Arrival(1000, is_open=True, is_broken=False), 300),
    ):
        assert not is_complete(arrival, settings, 1000 + wait - 1)
        assert is_complete(arrival, settings, 1000 + wait)


def test_waits_double_up_to_the_longest():
    for attempt in (1, 2, 5, 60, 10_000):
        whole = min(2.0 ** min(attempt - 1, 60), 100)
        assert 0.5 * whole <= wait_s(attempt, 1, 100) <= whole


def test_a_study_is_open_until_its_last_connection_ends(stores):
    stores.add(facts())
    connections = Connections(stores.arrivals)
    one, two = threading.Event(), threading.Event()
    connections.brought(one, "1.1")
    connections.brought(two, "1.1")
    connections.ended(one, broken=True)
    connections.ended(one, broken=False)  # ending it again changes nothing
    assert stores.arrivals.due(StudySettings(quiet_s=0, broken_s=0, open_s=300)) == []
    connections.ended(two, broken=False)
    (study,) = stores.arrivals.due(AT_ONCE)
    assert study.is_partial


def test_an_image_that_is_filed_after_its_connection_ended_opens_nothing(stores):
    stores.add(facts())
    connections, connection = Connections(stores.arrivals), threading.Event()
    connections.ended(connection, broken=True)
    connections.brought(connection, "1.1")
    (study,) = stores.arrivals.due(StudySettings(quiet_s=0, broken_s=0, open_s=300))
    assert study.is_partial


def test_a_queue_of_a_newer_version_or_no_queue_at_all_is_refused(tmp_path):
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(PacsError, match="newer MediScan"):
        Database(newer)
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"no database, but long enough to be taken for one" * 100)
    with pytest.raises(PacsError, match="Is it a queue of MediScan"):
        Database(other)
    with pytest.raises(PacsError, match="holds no queue"):
        Queue(tmp_path)


def test_a_full_disk_loses_nothing_of_what_was_there(stores):
    stores.add(facts())
    with stores.database.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    stores.database._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DiskFullError, match="disk is full"):
        for number in range(1000):
            stores.arrivals.add(facts("2", str(number)), "d" * 64, "x" * 100, 1, "ae:X")
    stores.database._connection.execute("PRAGMA max_page_count = 100000")
    kept = len(stores.arrivals.instances("1.2"))
    assert 0 < kept < 1000 and len(stores.arrivals.instances("1.1")) == 1
    assert stores.add(facts("3"))


def test_one_node_a_folder(tmp_path):
    first, second = NodeFolder(tmp_path / "node"), NodeFolder(tmp_path / "node")
    first.own()
    with pytest.raises(PacsError, match="works here"):
        second.own()
    first.disown()
    second.own()
    second.disown()


_WRITER = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_queue import Stores, facts
stores = Stores(Path({root!r}))
number = 0
while True:
    stores.add(facts(str(number)))
    stores.plan()
    print(number, flush=True)
    number += 1
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    root = tmp_path / "node"
    here = Path(__file__).resolve()
    script = _WRITER.format(paths=[str(here.parents[2]), str(here.parent)], root=str(root))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(60)]
    process.kill()
    said += process.stdout.readlines()
    process.wait()
    acknowledged = int([line for line in said if line.endswith("\n")][-1])
    stores = Stores(root)
    stores.items.recover()
    claimed = set()
    while (item := stores.items.claim()) is not None:
        claimed.add(item.study)
    stores.close()
    assert claimed >= {f"1.{number}" for number in range(acknowledged + 1)}


class QueueMachine(RuleBasedStateMachine):
    """Images come, studies are planned, items predicted, results sent; anything fails, and the node is restarted."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self.stores = Stores(Path(self._place.name) / "node")
        self.current: dict[Facts, str] = {}
        self.items: list = []
        self.confirmed: list[tuple[str, str]] = []

    def teardown(self) -> None:
        self.stores.close()
        self._place.cleanup()

    @rule(study=st.sampled_from("12"), uid=st.sampled_from("123"), slices=st.booleans(), digest=st.sampled_from("de"))
    def image(self, study, uid, slices, digest) -> None:
        one = facts(study + "5" * slices, uid, is_slice=slices)
        assert self.stores.add(one, digest) == (self.current.get(one) != digest)
        self.current[one] = digest

    @rule()
    def plan(self) -> None:
        self.stores.plan()

    @rule()
    def claim(self) -> None:
        item = self.stores.items.claim()
        if item is not None:
            self.items.append(item)

    @precondition(lambda self: self.items)
    @rule(end=st.sampled_from(["finish", "again", "dead", "back"]))
    def end(self, end) -> None:
        item = self.items.pop(0)
        if end == "finish":
            self.stores.items.finish(item, [(f"9.{item.id}.{number}", "x") for number in range(2)])
        elif end == "back":
            self.stores.items.give_back(item)
        else:
            self.stores.items.fail(item, "e", "m", None if end == "dead" else 0.0)

    @rule(name=st.sampled_from(RULE.send_to), end=st.sampled_from(["done", "part", "doubt", "dead", "killed"]))
    def send(self, name, end) -> None:
        delivery = self.stores.deliveries.next(name)
        if delivery is None:
            return
        uids = [one.uid for one in delivery.objects]
        assert not {(name, uid) for uid in uids} & set(self.confirmed)  # nothing that is there is sent again
        self.stores.deliveries.begin(delivery)
        if end == "done":
            self.stores.deliveries.done(delivery, set(uids))
            self.confirmed += [(name, uid) for uid in uids]
        elif end == "killed":
            self.restart()
        else:
            sent, doubt = (set(uids[:1]), set()) if end == "part" else (set(), set(uids[:1]))
            self.stores.deliveries.settle(delivery, sent, doubt)
            self.confirmed += [(name, uid) for uid in sent]
            self.stores.deliveries.fail(delivery, "e", "m", None if end == "dead" else 0.0)

    @rule()
    def restart(self) -> None:
        root = self.stores.folder.root
        self.stores.close()
        self.stores = Stores(root)
        self.stores.arrivals.recover()
        self.stores.items.recover()
        self.items.clear()

    @rule()
    def retry(self) -> None:
        queue = Queue(self.stores.folder.root)
        queue.retry([])
        queue.close()

    @invariant()
    def every_image_is_planned_or_about_to_be(self) -> None:
        due = {study.uid for study in self.stores.arrivals.due(AT_ONCE)}
        with self.stores.database.reading() as connection:
            rows = connection.execute("SELECT study, files, state FROM items WHERE state != 'superseded'").fetchall()
        for one, digest in self.current.items():
            file = f"studies/{one.study_uid}/{one.uid}-{digest}.dcm"
            assert one.study_uid in due or any(file in row["files"] for row in rows), one

    @invariant()
    def nothing_is_confirmed_twice(self) -> None:
        assert len(self.confirmed) == len(set(self.confirmed))

    @invariant()
    def items_and_their_deliveries_agree(self) -> None:
        with self.stores.database.reading() as connection:
            rows = connection.execute(
                "SELECT i.state, group_concat(d.state) AS sent FROM items i LEFT JOIN deliveries d ON d.item = i.id "
                "GROUP BY i.id"
            ).fetchall()
        for row in rows:
            sent = set((row["sent"] or "").split(",")) - {""}
            if row["state"] == "sending":
                assert "waiting" in sent
            elif row["state"] == "done":
                assert sent == {"done"}
            elif row["state"] in ("queued", "predicting"):
                assert not sent


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = hypothesis_settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_facts_are_kept_as_they_are(stores):
    one = replace(facts(), body_part="CHEST", has_patient_id=False)
    stores.add(one)
    assert stores.arrivals.instances("1.1")[0].facts == one
