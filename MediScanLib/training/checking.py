"""Looks at a whole manifest and names everything that is wrong or worth knowing, instead of stopping at the first.

`read_manifest` is strict and is what training uses; this is for the person who puts a data set together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import ClinicalError, DataError, ReadError
from ..progress import Progress
from ..study.values import parse_field
from .datasets import SPLITS, allowed_findings, row_problems
from .duplicates import Fingerprint, Pair, fingerprints, same_images
from .manifest import image_path, read_rows

Level = Literal["problem", "note"]

_FEW = 10  # studies of one label in val or test, below which no figure means much
_LOPSIDED = 10.0
_SHOWN = 5
_CELLS = ("leukocytes_1e9_per_l", "neutrophils_1e9_per_l", "lymphocytes_1e9_per_l")
_ROUNDING = 1.05

_TITLES = {
    "empty_cell": "Empty cells",
    "unknown_label": "Unknown labels",
    "unknown_split": "Unknown splits",
    "missing_file": "Missing files",
    "unreadable_image": "Images that cannot be read",
    "blank_image": "Images without content",
    "clinical_value": "Implausible clinical values",
    "severity": "Severity scores off their scale",
    "not_a_count": "Counts that are none",
    "patient_sex": "Patients of two sexes",
    "leaking_patient": "Patients in two splits or folds",
    "leaking_copy": "The same image in two splits or folds",
    "leaking_near_copy": "Nearly the same image in two splits or folds",
    "label_conflict": "The same image under different labels",
    "near_label_conflict": "Nearly the same image under different labels",
    "duplicate": "The same image twice in one split",
    "near_duplicate": "Nearly the same image of two patients in one split",
    "empty_split": "Empty splits",
    "one_class": "One label only",
    "image_warning": "Images read with a warning",
    "source_tells_label": "Sources that tell the label by themselves",
    "few_studies": "Labels with few studies",
    "imbalance": "Unbalanced labels",
}


@dataclass(frozen=True)
class Finding:
    """One thing that the check found.

    Attributes:
        kind: Stable name, one of the keys of the titles above.
        level: "problem" where figures would be wrong or training would fail, "note" where a person should know.
        text: Sentence for people.
        rows: Lines of the manifest.
        source: Data set that it concerns, "" for the whole manifest.
    """

    kind: str
    level: Level
    text: str
    rows: tuple[int, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class CheckReport:
    """What a manifest holds and what is wrong with it.

    Attributes:
        manifest: The file.
        studies: Number of rows.
        images_read: Whether the images themselves were looked at.
        balance: Number of studies by source, label and split.
        findings: Problems and notes.
    """

    manifest: str
    studies: int
    images_read: bool
    balance: Mapping[str, Mapping[str, Mapping[str, int]]]
    findings: Sequence[Finding] = field(default_factory=tuple)

    @property
    def problems(self) -> list[Finding]:
        """Findings of level "problem"."""
        return [finding for finding in self.findings if finding.level == "problem"]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything, with the number of findings by kind."""
        counts = Counter(finding.kind for finding in self.findings)
        return {**asdict(self), "problems": len(self.problems), "counts": dict(sorted(counts.items()))}

    def to_text(self) -> str:
        """For a terminal: the balance as a table, then the findings by kind, the first few of each in full."""
        lines = [f"{self.manifest}: {self.studies} studies", "", *self._table()]
        headings: tuple[tuple[Level, str], ...] = (("problem", "Problems"), ("note", "Worth knowing"))
        for level, heading in headings:
            lines += ["", f"{heading}:"] + (self._listing(level) or ["  none"])
        if not self.images_read:
            lines += ["", "The images themselves were not looked at."]
        return "\n".join(lines)

    def _table(self) -> Iterator[str]:
        yield f"{'source':20} {'label':24}" + "".join(f"{split:>7}" for split in SPLITS)
        for source, labels in self.balance.items():
            for label, splits in labels.items():
                yield f"{source:20} {label:24}" + "".join(f"{splits.get(split, 0):7}" for split in SPLITS)

    def _listing(self, level: Level) -> list[str]:
        by_kind: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            if finding.level == level:
                by_kind[finding.kind].append(finding)
        lines = []
        for kind in (kind for kind in _TITLES if kind in by_kind):
            found = by_kind[kind]
            by_source = Counter(finding.source for finding in found if finding.source)
            told = ", ".join(f"{source} {count}" for source, count in by_source.most_common())
            lines.append(f"  {_TITLES[kind]}: {len(found)}" + (f" ({told})" if told else ""))
            lines += [f"    {finding.text}" for finding in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"    ... and {len(found) - _SHOWN} more (all of them with --json)")
        return lines


def check_manifest(path: Path, *, images: bool = True, progress: Progress | None = None) -> CheckReport:
    """Check a manifest and, unless told otherwise, every image in it.

    Args:
        path: Manifest.
        images: Read all images, to find damaged ones and copies.
        progress: Hears how many images are read.

    Raises:
        DataError: The file is no manifest at all.
        CancelledError: The user cancelled.
    """
    _, rows = read_rows(path)
    findings: list[Finding] = []
    for number, row in enumerate(rows, start=2):
        found = [*row_problems(path, row)]
        findings += [
            Finding(kind, "problem", f"row {number}: {text}", (number,), row["source"]) for kind, text in found
        ]
        findings += _cell_counts(number, row)
    findings += _patients(rows)
    if images:
        findings += _images(path, rows, progress)
    findings += _balance_findings(rows)
    return CheckReport(str(path), len(rows), images, _balance(rows), tuple(findings))


def _cell_counts(number: int, row: Mapping[str, str]) -> Iterator[Finding]:
    try:
        leukocytes, neutrophils, lymphocytes = (parse_field(name, row.get(name)) for name in _CELLS)
    except ClinicalError:
        return  # told already
    if not isinstance(leukocytes, float):
        return
    parts = [part for part in (neutrophils, lymphocytes) if isinstance(part, float)]
    if parts and sum(parts) > _ROUNDING * leukocytes:
        text = f"row {number}: neutrophils and lymphocytes ({sum(parts):g}) exceed all leukocytes ({leukocytes:g})."
        yield Finding("clinical_value", "problem", text, (number,), row["source"])


def _patients(rows: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        if row["patient"]:
            members[row["source"], row["patient"]].append(at)
    for (source, patient), places in members.items():
        numbers = tuple(at + 2 for at in places)
        for column in ("split", "fold"):
            values = sorted({value for at in places if (value := rows[at].get(column))})
            if len(values) > 1:
                where = f"the {column}s {', '.join(values)}"
                text = f"patient {patient} of {source} is in {where} ({_rows(numbers)})."
                yield Finding("leaking_patient", "problem", text, numbers, source)
        sexes = {sex for at in places if (sex := rows[at].get("sex", "")) in ("F", "M")}
        if len(sexes) > 1:
            text = f"patient {patient} of {source} is F in one row and M in another ({_rows(numbers)})."
            yield Finding("patient_sex", "problem", text, numbers, source)


def _images(path: Path, rows: Sequence[Mapping[str, str]], progress: Progress | None) -> Iterator[Finding]:
    present = [at for at, row in enumerate(rows) if row["image"] and image_path(path, row["image"]).exists()]
    results = fingerprints([image_path(path, rows[at]["image"]) for at in present], progress)
    places, prints = [], []
    for at, result in zip(present, results, strict=True):
        number, source = at + 2, rows[at]["source"]
        if isinstance(result, ReadError):
            yield Finding("unreadable_image", "problem", f"row {number}: {result}", (number,), source)
            continue
        places.append(at)
        prints.append(result)
        for warning in result.warnings:
            yield Finding("image_warning", "note", f"row {number}: {rows[at]['image']}: {warning}", (number,), source)
        if result.low == result.high:
            text = f"row {number}: every pixel of {rows[at]['image']} is {result.low:g}."
            yield Finding("blank_image", "problem", text, (number,), source)
    yield from _copies(rows, places, prints)


def _copies(
    rows: Sequence[Mapping[str, str]], places: Sequence[int], prints: Sequence[Fingerprint]
) -> Iterator[Finding]:
    for pair in same_images(prints):
        first, second = places[pair.first], places[pair.second]
        one, other = rows[first], rows[second]
        numbers = (first + 2, second + 2)
        what = f"{one['image']} ({one['source']}) and {other['image']} ({other['source']}), {_rows(numbers)}"
        source = " and ".join(dict.fromkeys((one["source"], other["source"])))
        near = pair.kind == "near"
        alike = _likeness(pair)
        apart = [
            f"{one.get(column)} and {other.get(column)}"
            for column in ("split", "fold")
            if one.get(column, "") != other.get(column, "")
        ]
        same_patient = (one["source"], one["patient"]) == (other["source"], other["patient"])
        if apart:
            kind = "leaking_near_copy" if near else "leaking_copy"
            yield Finding(kind, "problem", f"{what}: {alike}, in {', '.join(apart)}.", numbers, source)
        elif not near:
            yield Finding("duplicate", "problem", f"{what}: {alike}.", numbers, source)
        elif not same_patient:
            yield Finding("near_duplicate", "note", f"{what}: {alike}.", numbers, source)
        if one["label"] != other["label"]:
            text = f"{what}: {alike}, labelled {one['label']} and {other['label']}."
            if near:
                yield Finding("near_label_conflict", "note", text, numbers, source)
            else:
                yield Finding("label_conflict", "problem", text, numbers, source)


def _likeness(pair: Pair) -> str:
    words = {"file": "the same file", "pixels": "the same pixels"}
    return words.get(pair.kind, f"details correlate {pair.similarity:.2f}")


def _balance(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, dict[str, int]]]:
    counts = Counter((row["source"], row["label"], row["split"]) for row in rows)
    balance: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for (source, label, split), count in sorted(counts.items()):
        balance[source][label][split] = count
    return {source: dict(labels) for source, labels in balance.items()}


def _balance_findings(rows: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    labels: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    sources: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        sources[row["source"]][row["label"]] += 1
        if row["split"] in labels:
            labels[row["split"]][row["label"]] += 1
    folded = any(row.get("fold") for row in rows)
    for split in SPLITS:
        if not labels[split]:
            level: Level = "note" if folded else "problem"
            yield Finding("empty_split", level, f"no study is in {split}. Make the splits with `mediscan data split`.")
        elif not _tells_findings_apart(labels[split]):
            only = ", ".join(sorted(labels[split]))
            yield Finding("one_class", "problem", f"every study in {split} is labelled {only}.")
    counted = Counter((row["split"], row["source"], row["label"]) for row in rows)
    for (split, source, label), count in sorted(counted.items()):
        if split in ("val", "test") and count < _FEW:
            text = f"{split} holds {count} studies of {source} labelled {label}: no figure on them means much."
            yield Finding("few_studies", "note", text, source=source)
    for source, counts in sorted(sources.items()):
        if len(counts) == 1 and len(sources) > 1:
            text = f"{source} holds only {next(iter(counts))}: a network can learn the source instead of the finding."
            yield Finding("source_tells_label", "note", text, source=source)
        most, least = max(counts.values()), min(counts.values())
        if most > _LOPSIDED * least:
            told = ", ".join(f"{label} {count}" for label, count in counts.most_common())
            yield Finding("imbalance", "note", f"{source}: {told}.", source=source)


def _tells_findings_apart(labels: Counter[str]) -> bool:
    allowed = set()
    for label in labels:
        try:
            allowed.add(allowed_findings(label))
        except DataError:
            return True  # told already
    return len(allowed) > 1


def _rows(numbers: Sequence[int]) -> str:
    listed = ", ".join(str(number) for number in numbers[:_SHOWN])
    return f"rows {listed}{', ...' if len(numbers) > _SHOWN else ''}"
