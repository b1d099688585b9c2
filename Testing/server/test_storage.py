"""What is kept, on SQLite and on PostgreSQL: nothing lost, nothing done twice, nothing changed afterwards."""

from __future__ import annotations

import threading
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from MediScanLib.errors import MediScanError, UsageError
from MediScanLib.prediction.exchange import Request
from MediScanLib.server.problems import BusyError, MissingError
from MediScanLib.server.storage.audit import AuditError, AuditLog
from MediScanLib.server.storage.database import Database, StorageError
from MediScanLib.server.storage.job import Failed, LostError
from MediScanLib.server.storage.jobs import JobStore
from MediScanLib.server.storage.studies import StudyStore
from MediScanLib.server.storage.tables import metadata
from MediScanLib.server.storage.tokens import TokenStore
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.record import ClinicalRecord
from toys import make_predictor


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    database.migrate()
    yield database
    database.close()


def store(database, **changes) -> JobStore:
    return JobStore(database, **{"lease_s": 60.0, "attempts": 3, "keep_s": 100.0, "most": 50, **changes})


def submitted(jobs: JobStore, count: int = 1, **changes):
    job, _ = jobs.submit(
        [Request(make_phantom(), model="toy")] * count,
        **{"owner": "ann", "kind": "batch", "model": "toy", "fingerprint": "f", **changes},
    )
    return job


@pytest.fixture(scope="module")
def prediction():
    return make_predictor()(make_phantom())


def test_migrations_lead_to_the_tables_of_the_code(database) -> None:
    database.migrate()  # again: nothing to do
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_newer_database_is_left_alone(database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match="newer MediScan"):
        database.migrate()


def test_a_study_comes_back_as_it_was(database, prediction) -> None:
    studies = StudyStore(database)
    image = make_phantom()
    record = ClinicalRecord(crp_mg_per_l=80)
    identity = studies.keep(Request(image, record, model="toy"), prediction, "ann", 100)
    again = studies.request(identity)
    assert again.image.pixels.tobytes() == image.pixels.tobytes()
    for name in ("spacing", "origin", "direction", "identifiers", "warnings", "source", "prefill", "window"):
        assert getattr(again.image, name) == getattr(image, name), name
    assert again.record == record
    assert studies.prediction(identity).to_dict() == prediction.to_dict()
    assert studies.prediction(identity).maps.to_json() == prediction.maps.to_json()
    studies.forget(identity)
    with pytest.raises(MissingError):
        studies.get(identity)
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM chunks")).scalar_one() == 0


def test_what_has_expired_is_removed(database, prediction) -> None:
    studies, jobs = StudyStore(database), store(database, keep_s=0.3)
    identity = studies.keep(Request(make_phantom()), prediction, "ann", -1.0)
    with pytest.raises(MissingError):
        studies.prediction(identity)
    waiting, ended = submitted(jobs), submitted(jobs)
    jobs.cancel(ended.id, "ann")
    time.sleep(0.35)
    assert studies.expire() == 2
    assert jobs.get(waiting.id).state == "queued", "what has not been done does not expire"
    with pytest.raises(MissingError):
        jobs.get(ended.id)


def test_a_job_goes_its_way(database, prediction) -> None:
    jobs, studies = store(database), StudyStore(database)
    request = Request(make_phantom(), model="toy")
    job, new = jobs.submit(
        [request, Failed("b.png", "corrupt", "is damaged\0")], owner="ann", kind="batch", model="toy", fingerprint="f"
    )
    assert new
    assert (job.state, job.total, job.done) == ("queued", 2, 1)
    claimed = jobs.claim("w1")
    assert claimed is not None
    assert claimed.id == job.id
    assert jobs.claim("w2") is None
    (study,) = jobs.todo(claimed)
    assert jobs.beat(claimed, "w1", "slices", 3, 9) is False
    assert (jobs.get(job.id).slices_done, jobs.get(job.id).slices_total) == (3, 9)
    jobs.answer(claimed, "w1", study, prediction)
    jobs.end(claimed, "w1", "done")
    assert jobs.get(job.id).state == "done"
    assert [s.state for s in studies.of_job(job.id)] == ["done", "failed"]
    with pytest.raises(UsageError, match="ended already"):
        jobs.cancel(job.id, "ann")


def test_a_silent_worker_loses_its_job_and_cannot_write_any_more(database, prediction) -> None:
    jobs = store(database, lease_s=0.05)
    job = submitted(jobs, 2)
    first = jobs.claim("w1")
    done, left = jobs.todo(first)
    jobs.answer(first, "w1", done, prediction)
    time.sleep(0.1)
    second = store(database).claim("w2")
    assert second is not None
    assert (second.id, second.attempt) == (job.id, 2)
    assert jobs.todo(second) == [left], "what has a result is not done again"
    for late in (
        lambda: jobs.answer(first, "w1", left, prediction),
        lambda: jobs.answer(second, "w2", done, MediScanError("other")),
        lambda: jobs.beat(first, "w1", "", 0, 0),
        lambda: jobs.end(first, "w1", "failed"),
    ):
        with pytest.raises(LostError):
            late()
    assert jobs.get(job.id).done == 1
    jobs.answer(second, "w2", left, prediction)
    jobs.end(second, "w2", "done")


def test_a_job_that_takes_its_workers_down_is_given_up(database) -> None:
    jobs = store(database, lease_s=0.01, attempts=2)
    job = submitted(jobs)
    for _ in range(2):
        assert jobs.claim("w") is not None
        time.sleep(0.03)
    assert jobs.claim("w") is None
    ended = jobs.get(job.id)
    assert ended.state == "failed"
    assert "ended 2 times" in ended.error[1]


def test_a_stop_is_no_failed_attempt(database) -> None:
    jobs = store(database)
    job = submitted(jobs)
    jobs.claim("w1")
    assert jobs.release("w1") == 1
    assert (jobs.get(job.id).state, jobs.get(job.id).attempt) == ("queued", 0)
    assert jobs.claim("w2") is not None


def test_cancelling(database) -> None:
    jobs = store(database, lease_s=0.05)
    waiting, running = submitted(jobs), submitted(jobs)
    jobs.cancel(waiting.id, "ann")
    claimed = jobs.claim("w")
    assert claimed.id == running.id
    assert jobs.cancel(running.id, "ann").cancelling
    assert jobs.beat(claimed, "w", "", 0, 0) is True
    time.sleep(0.1)  # its worker died before it could end it
    assert jobs.claim("w2") is None
    assert jobs.get(running.id).state == "cancelled"


def test_a_key_makes_submitting_safe_to_repeat(database) -> None:
    jobs = store(database)
    first = submitted(jobs, key="k")
    assert submitted(jobs, key="k").id == first.id
    assert submitted(jobs, key="k", owner="bob").id != first.id
    with pytest.raises(UsageError, match="other content"):
        submitted(jobs, key="k", fingerprint="g")


def test_too_many_jobs_are_refused(database) -> None:
    jobs = store(database, most=2)
    submitted(jobs)
    submitted(jobs)
    with pytest.raises(BusyError):
        submitted(jobs)


def test_many_workers_share_the_jobs(database_url) -> None:
    """Eight threads with connections of their own: each job is claimed once, each key makes one job."""
    database = Database(database_url)
    database.migrate()
    jobs = store(database)
    ids = [submitted(jobs).id for _ in range(12)]
    claimed: list[str] = []
    same: list[str] = []

    def work(number: int) -> None:
        own = Database(database_url)
        mine = store(own)
        same.append(submitted(mine, key="together").id)
        while (job := mine.claim(f"w{number}")) is not None:
            claimed.append(job.id)
        own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(same)) == 1
    left = []
    while (job := jobs.claim("last")) is not None:  # a claim may come back empty-handed when another was quicker
        left.append(job.id)
    assert sorted(claimed + left) == sorted({*ids, same[0]})
    assert AuditLog(database).verify()[0] == 13
    database.close()


def test_tokens(database) -> None:
    tokens = TokenStore(database)
    assert not tokens.any_active()
    shown = tokens.add("ann", "submitter")
    found = tokens.find(shown)
    assert found is not None
    assert (found.name, found.role) == ("ann", "submitter")
    with database.reading() as connection:
        everything = str(connection.execute(text("SELECT * FROM tokens")).all())
    assert shown.rpartition("_")[2] not in everything, "only digests are kept"
    for wrong in ("", "x", shown[:-1], shown + "x", shown.replace("msc", "abc"), "msc__", "ü" * 9, shown + "\n"):
        assert tokens.find(wrong) is None
    with pytest.raises(UsageError, match="another name"):
        tokens.add("ann", "reader")
    old = tokens.add("bob", "reader", expires=time.time() - 1)
    assert tokens.find(old) is None
    tokens.revoke("ann")
    assert tokens.find(shown) is None
    with pytest.raises(UsageError, match="no token"):
        tokens.revoke("ann")


def test_the_audit_log_can_only_grow(database) -> None:
    log = AuditLog(database)
    for number in range(5):
        log.append("test", "ann", {"number": number, "text": "ü"})
    count, digest = log.verify()
    assert count == 5
    for statement in ("UPDATE audit SET actor = 'x' WHERE number = 2", "DELETE FROM audit WHERE number = 5"):
        with pytest.raises((DBAPIError, StorageError), match="append-only"), database.writing() as connection:
            connection.execute(text(statement))
    log.append("test", "bob")
    assert log.verify(digest)[0] == 6
    assert [entry.actor for entry in log.last(2)] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit SET actor = 'mallory' WHERE number = 2", "Entry 2 .* changed"),
        ("UPDATE audit SET details = '{}' WHERE number = 3", "Entry 3 .* changed"),
        ("UPDATE audit SET at = at + 1 WHERE number = 1", "Entry 1 .* changed"),
        ("DELETE FROM audit WHERE number = 2", "Entry 2 .* missing"),
        ("DELETE FROM audit WHERE number = 4", "at its end were removed"),
    ],
)
def test_whoever_goes_around_the_triggers_is_found_out(database, statement, said) -> None:
    log = AuditLog(database)
    for number in range(4):
        log.append("test", "ann", {"number": number})
    _, digest = log.verify()
    with database.writing() as connection:
        if database.is_sqlite:
            connection.execute(text("DROP TRIGGER audit_update"))
            connection.execute(text("DROP TRIGGER audit_delete"))
        else:
            connection.execute(text("DROP TRIGGER audit_append_only ON audit"))
        connection.execute(text(statement))
    with pytest.raises(AuditError, match=said):
        log.verify(digest)


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "nonsense", "sqlite:///:memory:"])
def test_databases_that_cannot_be_used(url) -> None:
    with pytest.raises(StorageError):
        Database(url)


def test_a_database_that_is_not_there(tmp_path) -> None:
    database = Database(f"postgresql://nobody:hunter2@/x?host={tmp_path}")
    with pytest.raises(StorageError) as caught:
        database.migrate()
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in database.shown
