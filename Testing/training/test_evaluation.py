"""Figures on answers that are known by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from MediScanLib.errors import DataError
from MediScanLib.network.card import Card
from MediScanLib.study.record import ClinicalRecord
from MediScanLib.training.datasets import LABELS, Study
from MediScanLib.training.evaluating.ablation import ablation
from MediScanLib.training.evaluating.across import across_sources
from MediScanLib.training.evaluating.answers import (
    CLINICAL_ONLY,
    FUSED,
    IMAGE_ONLY,
    Answers,
    answers_csv,
    join_answers,
)
from MediScanLib.training.evaluating.binary import binary_figures, calibration_error
from MediScanLib.training.evaluating.bootstrap import intervals, patient_resamples
from MediScanLib.training.evaluating.cases import choose_cases
from MediScanLib.training.evaluating.coverage import set_coverage
from MediScanLib.training.evaluating.selective import risk_coverage, selective
from MediScanLib.training.evaluating.severity import severity_agreement
from MediScanLib.training.evaluating.shortcuts import SIZE, SOURCE, VIEW, Learned, shortcuts
from MediScanLib.training.evaluating.subgroups import second_reading, subgroups
from MediScanLib.training.evaluating.summary import Subject, summarize, to_json
from MediScanLib.training.evaluating.within import by_disease, overall, within_source
from MediScanLib.training.evaluation import bootstrap, severity_correlation, tasks_in, within_source_auc

ROUNDS = 60


def make_study(number, source, label, split="val", patient=None, severity=None, **record):
    return Study(
        image=Path(f"{number:08d}_000.jpg"),
        source=source,
        licence="",
        patient=str(number if patient is None else patient),
        split=split,
        label=label,
        modality="CR",
        body_part="CHEST",
        record=ClinicalRecord(**record),
        severity=severity,
        row=number + 2,
    )


def make_answers(studies, scores, columns=None, severity=None, threshold=0.5, deferred=None, sets=None):
    """Answers whose probability of the study's disease of interest is `scores`, the rest going to normal."""
    probabilities = np.zeros((len(studies), len(LABELS)))
    for i, study in enumerate(studies):
        disease = {"nih": "pneumonia", "cohen": "covid", "busi": "cancer"}[study.source]
        probabilities[i, LABELS.index(disease)] = scores[i]
        probabilities[i, 0] = 1 - scores[i]
    columns = columns or [{} for _ in studies]
    return Answers(
        studies=tuple(studies),
        columns=tuple({"image": study.image.name, **own} for study, own in zip(studies, columns, strict=True)),
        labels=LABELS,
        probabilities={
            FUSED: probabilities,
            IMAGE_ONLY: probabilities,
            CLINICAL_ONLY: np.full_like(probabilities, 1 / len(LABELS)),
        },
        severity={} if severity is None else {FUSED: np.asarray(severity, dtype=float)},
        thresholds=np.full(probabilities.shape, threshold),
        deferred=np.zeros(len(studies), bool) if deferred is None else np.asarray(deferred),
        reasons=("",) * len(studies),
        sets=sets or {},
    )


def nih(count=40, **more):
    return [make_study(i, "nih", "pneumonia" if i % 2 else "normal", **more) for i in range(count)]


def truth_of(studies):
    return np.array([study.label != "normal" for study in studies], dtype=float)


def test_figures_by_hand():
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    score = np.array([0.9, 0.8, 0.2, 0.7, 0.4, 0.3, 0.1, 0.1])
    figures = binary_figures(truth, score, score >= 0.5)
    assert figures["accuracy"] == pytest.approx(6 / 8)
    assert figures["sensitivity"] == figures["recall"] == pytest.approx(2 / 3)
    assert figures["specificity"] == pytest.approx(4 / 5)
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["F1"] == pytest.approx(2 / 3)
    # of 15 pairs the missed positive loses three: against 0.7, 0.4 and 0.3
    assert figures["AUC-ROC"] == pytest.approx(12 / 15)
    assert figures["AUC-PR"] == pytest.approx((1 / 1 + 2 / 2 + 3 / 6) / 3)
    assert figures["Brier"] == pytest.approx(((score - truth) ** 2).mean())


def test_calibration_error_by_hand():
    score = np.array([0.15, 0.15, 0.85, 0.85, 0.85, 0.85])
    truth = np.array([0, 0, 1, 1, 1, 0], bool)
    assert calibration_error(truth, score) == pytest.approx(2 / 6 * 0.15 + 4 / 6 * 0.10, abs=1e-6)


def test_nothing_called_present_has_no_precision():
    truth = np.array([True, False])
    assert math.isnan(binary_figures(truth, np.array([0.2, 0.1]), np.array([False, False]))["precision"])
    with pytest.raises(ValueError, match="one class"):
        binary_figures(np.array([True]), np.array([0.2]), np.array([False]))


def test_bootstrap_covers_the_true_value():
    """A 95 % interval holds the truth in about 95 of 100 experiments."""
    rng = np.random.default_rng(0)
    hits = 0
    for experiment in range(200):
        sample = rng.random(60) < 0.3
        patients = [str(i) for i in range(60)]
        figure = intervals(lambda rows, s=sample: {"": float(s[rows].mean())}, patients, 200, experiment)[""]
        hits += figure.low <= 0.3 <= figure.high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_draws_patients_and_not_images():
    values = np.repeat([0.0, 1.0] * 5, 20)  # ten patients with twenty equal images each
    patients = np.repeat([str(i) for i in range(10)], 20)

    def width(groups):
        figure = intervals(lambda rows: {"": float(values[rows].mean())}, list(groups), ROUNDS)[""]
        return figure.high - figure.low

    assert width(patients) > 3 * width([str(i) for i in range(200)])
    for rows in patient_resamples(list(patients), 5):
        assert all(count % 20 == 0 for count in np.unique(patients[rows], return_counts=True)[1])


def test_bootstrap_keeps_strata():
    strata = ["a"] * 3 + ["b"] * 7
    for rows in patient_resamples([str(i) for i in range(10)], 20, strata=strata):
        assert sum(strata[i] == "a" for i in rows) == 3


def test_bootstrap_of_one_statistic():
    value, low, high = bootstrap(lambda rows: float(rows.mean()), [str(i) for i in range(50)], ROUNDS)
    assert value == 24.5
    assert low < value < high


def test_differences_are_paired():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=100)
    figures = intervals(
        lambda rows: {"a": noise[rows].mean(), "b": noise[rows].mean() + 0.1, "b - a": 0.1},
        [str(i) for i in range(100)],
        ROUNDS,
    )
    assert figures["b - a"].high - figures["b - a"].low < 1e-9
    assert figures["a"].high > figures["b"].low


def test_perfect_and_random_classifier():
    studies = nih(200)
    (perfect,) = within_source(make_answers(studies, truth_of(studies) * 0.8 + 0.1), ROUNDS)
    assert all(perfect.figures[name].value == 1 for name in ("accuracy", "precision", "recall", "F1", "AUC-ROC"))
    assert perfect.prevalence == 0.5
    assert perfect.patients == 200
    (guessing,) = within_source(make_answers(studies, np.random.default_rng(0).random(200)), ROUNDS)
    auc = guessing.figures["AUC-ROC"]
    assert auc.low < 0.5 < auc.high
    assert auc.high - auc.low > 0.05


def test_a_source_does_not_answer_for_another():
    """Within each source the model guesses; across sources it looks perfect."""
    rng = np.random.default_rng(0)
    studies = [*nih(100), *(make_study(1000 + i, "busi", "cancer" if i % 2 else "benign") for i in range(100))]
    answers = make_answers(studies, 0.4 + 0.2 * rng.random(200))
    for row in within_source(answers, ROUNDS):
        assert row.figures["AUC-ROC"].low < 0.5 < row.figures["AUC-ROC"].high
    assert across_sources(answers, ROUNDS).figures["AUC-ROC of pneumonia"].value > 0.7


def test_first_table_averages_sources():
    studies = [*nih(40), *(make_study(1000 + i, "cohen", "covid" if i % 2 else "pneumonia") for i in range(40))]
    rows = {row.label: row for row in by_disease(make_answers(studies, truth_of(studies)), ROUNDS)}
    assert list(rows) == list(LABELS)
    assert rows["normal"].tasks == ("normal vs pneumonia (nih)",)
    assert rows["normal"].figures["AUC-ROC"].value == 1
    assert rows["pneumonia"].studies == 40
    assert rows["covid"].figures["AUC-ROC"].value == 0.5  # all of cohen got the same probability
    assert rows["fracture"].tasks == ()
    assert not rows["fracture"].figures


def test_overall_is_the_mean_of_the_tasks():
    studies = [*nih(40), *(make_study(1000 + i, "busi", "cancer" if i % 2 else "benign") for i in range(40))]
    scores = np.concatenate([truth_of(studies)[:40], np.full(40, 0.4)])
    assert overall(make_answers(studies, scores), ROUNDS).figures["AUC-ROC"].value == pytest.approx(0.75)


def test_other_sources_make_their_own_tasks():
    studies = [make_study(i, "elsewhere", label) for i, label in enumerate(["fracture", "normal", "fracture"])]
    (task,) = tasks_in(studies)
    assert (task.positive, task.negatives) == ("fracture", ("normal",))


def test_ablation_sees_what_the_clinical_values_add():
    studies = nih(60, age_years=50)
    answers = make_answers(studies, truth_of(studies))
    noise = np.random.default_rng(0).random(60)
    blind = answers.probabilities[FUSED].copy()
    blind[:, LABELS.index("pneumonia")] = noise
    answers = Answers(**{**vars(answers), "probabilities": {**answers.probabilities, IMAGE_ONLY: blind}})
    (row,) = ablation(answers, ROUNDS)
    assert row.differences["fused - image only"].low > 0.2
    assert not row.fusion_adds_nothing
    assert row.auc[CLINICAL_ONLY].value == 0.5
    assert row.with_values == 60


def test_shortcuts_find_what_the_view_gives_away():
    train, held_out = nih(80, split="train"), nih(40)
    views = [[{"view": "AP" if study.label == "pneumonia" else "PA"} for study in part] for part in (train, held_out)]
    answers = make_answers(held_out, np.full(40, 0.5), views[1])
    columns = [{"image": study.image.name, **own} for study, own in zip(train, views[0], strict=True)]
    found = {
        row.shortcut: row
        for row in shortcuts(answers, [Learned(np.arange(40), train, columns)], ROUNDS)
        if row.source == "nih"
    }
    assert found[VIEW].figures["AUC-ROC"].value == 1
    assert found[VIEW].figures["model's AUC-ROC - shortcut's"].value == -0.5
    assert found[SOURCE].figures["AUC-ROC"].value == 0.5
    assert SIZE not in found  # the manifest does not tell


def test_follow_up_number_is_read_from_the_file_name():
    def numbered(count, split):
        return [
            Study(**{**vars(s), "image": Path(f"{i:08d}_{(30 if s.label == 'pneumonia' else 1):03d}.jpg")})
            for i, s in enumerate(nih(count, split=split))
        ]

    train, held_out = numbered(80, "train"), numbered(40, "val")
    answers = make_answers(held_out, np.full(40, 0.5))
    columns = [{"image": s.image.name} for s in train]
    found = shortcuts(answers, [Learned(np.arange(40), train, columns)], ROUNDS)
    assert next(row for row in found if row.shortcut == VIEW).figures["AUC-ROC"].value == 1


def test_severity_beside_the_readers():
    rng = np.random.default_rng(0)
    senior = rng.uniform(0, 18, 40)
    junior = np.clip(senior + rng.normal(0, 1, 40), 0, 18)
    mean = (senior + junior) / 2 / 18
    studies = [make_study(i, "cohen", "covid", severity=float(mean[i])) for i in range(40)]
    columns = [{"brixia_senior": str(senior[i]), "brixia_junior": str(junior[i])} for i in range(40)]
    answers = make_answers(studies, np.full(40, 0.5), columns, severity=mean + 0.1)
    model, readers = severity_agreement(answers, ROUNDS)
    assert model.figures["Pearson r"].value == pytest.approx(1)
    assert model.figures["MAE"].value == pytest.approx(1.8)
    assert readers.rater == "junior reader"
    assert readers.figures["MAE"].value == pytest.approx(np.abs(senior - junior).mean())
    assert severity_correlation(studies, mean, "val")[0].value == pytest.approx(1)


def test_subgroups_tell_who_is_served_worse():
    studies = [
        make_study(i, "nih", "pneumonia" if i % 2 else "normal", sex="F" if i < 60 else "M", age_years=30)
        for i in range(100)
    ]
    scores = truth_of(studies)
    scores[60:] = np.random.default_rng(0).random(40)
    found = {row.group: row for row in subgroups(make_answers(studies, scores), ROUNDS)}
    assert set(found) == {"F", "M"}  # one age band only is no comparison
    assert found["M"].reference == "F"
    assert found["M"].differences["AUC-ROC"].high < 0
    assert not found["F"].differences


def test_small_groups_are_listed_and_not_scored():
    studies = [make_study(i, "nih", "pneumonia" if i % 2 else "normal", sex="M" if i < 3 else "F") for i in range(40)]
    found = {row.group: row for row in subgroups(make_answers(studies, truth_of(studies)), ROUNDS)}
    assert found["M"].studies == 3
    assert not found["M"].figures


def test_risk_falls_with_coverage():
    coverage, risk = risk_coverage(np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.1, 3.0, 2.0, 0.2]))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == [0, 0, pytest.approx(1 / 3), 0.5]


def test_deferral_is_scored_as_the_model_defers():
    studies = nih(40)
    scores = truth_of(studies) * 0.8 + 0.1
    scores[:4] = 1 - scores[:4]
    (row,) = selective(make_answers(studies, scores, deferred=np.arange(40) < 4), ROUNDS)
    assert row.figures["error on all"].value == pytest.approx(0.1)
    assert row.figures["error as deferred"].value == 0
    assert row.figures["coverage as deferred"].value == pytest.approx(0.9)


def test_cases_are_the_extremes():
    studies = nih(6)  # rows 1, 3, 5 are pneumonia
    cases = {case.kind: case for case in choose_cases(make_answers(studies, [0.1, 0.9, 0.8, 0.95, 0.2, 0.05]))}
    assert (cases["best"].row, cases["missed"].row, cases["false alarm"].row) == (3, 5, 2)


def test_card_metrics_keep_their_form():
    studies = nih(40)
    (metric,) = within_source_auc(studies, make_answers(studies, truth_of(studies)).probabilities[FUSED], "val")
    assert (metric.value, metric.task, metric.source) == (1.0, "pneumonia vs normal", "nih")


def test_json_is_strict_and_names_what_is_confounded():
    studies = nih(40)
    answers = make_answers(studies, np.zeros(40))  # nothing is ever called present: no precision
    subject = Subject("toy", "1", "0" * 64, "studies.csv", "0" * 64, "val", "none", 20)
    summary = summarize(answers, subject, [])
    found = json.loads(to_json(summary))
    assert found["within_source"][0]["figures"]["precision"]["value"] is None
    assert "across sources (confounded)" in found
    assert "across" not in found
    assert any("nih" in text for text in found["cautions"])
    assert not any("iqothnccd" in text for text in found["cautions"])


def test_table_of_answers():
    studies = nih(3)
    lines = answers_csv(make_answers(studies, [0.1, 0.9, 0.2])).splitlines()
    assert len(lines) == 4
    header = lines[0].split(",")
    row = dict(zip(header, lines[2].split(","), strict=True))
    assert float(row["pneumonia_fused"]) == 0.9
    assert float(row["pneumonia_clinical_only"]) == pytest.approx(0.2)
    assert (row["label"], row["top"], row["present"], row["row"]) == ("pneumonia", "pneumonia", "pneumonia", "3")


def test_labels_are_those_of_the_card(shared_data):
    """The shipped model answers in the order that the tasks name."""
    folder = Path(__file__).resolve().parents[2] / "Resources" / "Models" / "mediscan-general"
    assert tuple(Card.model_validate_json((folder / "card.json").read_text(encoding="utf-8")).labels) == LABELS


def test_labels_that_a_second_reading_confirms_are_scored_apart():
    studies = nih(60)
    right = [i < 40 for i in range(60)]  # the last twenty labels are wrong
    notes = [
        {"label_note": f"RSNA readers: {'Lung Opacity' if (s.label == 'pneumonia') == ok else 'Normal'}"}
        for s, ok in zip(studies, right, strict=True)
    ]
    truth = [(s.label == "pneumonia") == ok for s, ok in zip(studies, right, strict=True)]
    scores = np.where(truth, 0.9, 0.1)
    found = {row.group: row for row in subgroups(make_answers(studies, scores, notes), ROUNDS)}
    assert found["readers agree"].studies == 40
    assert found["readers agree"].figures["AUC-ROC"].value == 1
    assert found["readers disagree"].figures["AUC-ROC"].value == 0


@pytest.mark.parametrize(
    ("label", "note", "expected"),
    [
        ("pneumonia", "RSNA readers: Lung Opacity", "readers agree"),
        ("pneumonia", "RSNA readers: No Lung Opacity / Not Normal", "readers disagree"),
        ("normal", "RSNA readers: Normal", "readers agree"),
        ("normal", "", ""),
        ("normal", "no case ids", ""),
        ("cancer", "RSNA readers: Normal", ""),
    ],
)
def test_second_reading(label, note, expected):
    assert second_reading(make_study(0, "nih", label), note) == expected


def test_models_that_know_different_findings_are_not_pooled():
    one = make_answers(nih(), truth_of(nih()))
    other = Answers(**{**vars(one), "labels": ("normal", "pneumonia")})
    assert len(join_answers([one, one]).studies) == 80
    with pytest.raises(DataError, match="different questions"):
        join_answers([one, other])


def test_sets_are_counted_finding_by_finding():
    studies = nih(40)
    members = np.zeros((40, 5), bool)
    members[:, LABELS.index("normal")] = True  # pneumonia is never in a set
    members[:10, LABELS.index("covid")] = True
    rows = {row.label: row for row in set_coverage(make_answers(studies, truth_of(studies), sets={0.9: members}), 50)}
    assert rows["normal"].figures["empirical coverage"].value == 1
    assert rows["pneumonia"].figures["empirical coverage"].value == 0
    assert not rows["pneumonia"].within
    assert rows[None].figures["empirical coverage"].value == 0.5
    assert rows[None].figures["mean set size"].value == pytest.approx(1.25)
    assert rows[None].figures["empty sets"].value == 0
    assert set(rows) == {"normal", "pneumonia", None}


def test_benign_studies_take_no_part_in_sets():
    studies = [make_study(i, "busi", "benign" if i % 2 else "cancer") for i in range(20)]
    answers = make_answers(studies, np.ones(20), sets={0.8: np.ones((20, 5), bool)})
    assert {row.label: row.studies for row in set_coverage(answers, 20)} == {"cancer": 10, None: 10}


def test_a_contradiction_is_less_certain_than_any_probability():
    answers = make_answers(nih(3), [0.51, 0.9, 0.6], threshold=0.45)
    assert answers.certainty.tolist() == pytest.approx([0.51 - 1, 0.9, 0.6])  # the first is normal with 0.49, too


def test_deferring_the_right_ones_is_called_worse():
    studies = nih(40)
    scores = truth_of(studies) * 0.8 + 0.1
    scores[:4] = 1 - scores[:4]
    (worse,) = selective(make_answers(studies, scores, deferred=np.arange(40) > 20), ROUNDS)
    (better,) = selective(make_answers(studies, scores, deferred=np.arange(40) < 4), ROUNDS)
    assert (worse.verdict, better.verdict) == ("deferring makes it worse", "deferring helps")
