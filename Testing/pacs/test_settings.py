"""The YAML file of a node, and its rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from MediScanLib.errors import ConfigError
from MediScanLib.pacs.facts import Facts
from MediScanLib.pacs.rules import Rule, matching_rule
from MediScanLib.pacs.settings import PacsSettings
from MediScanLib.pacs.settings_file import load_settings

DOCS = Path(__file__).resolve().parents[2] / "docs/pacs.md"
LEAST = """
destinations:
  pacs: {kind: c-store, host: 127.0.0.1, port: 104, ae_title: ARCHIVE}
rules:
  - name: all
    send_to: pacs
"""


def load(tmp_path: Path, text: str | bytes) -> PacsSettings:
    path = tmp_path / "node.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(path)


def test_the_least_that_is_needed(tmp_path):
    settings = load(tmp_path, LEAST)
    assert settings.listen.host == "127.0.0.1" and settings.rules[0].results == ("sr", "seg", "pm", "sc")


def test_the_documentation_can_be_copied(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    whole, rules = map(yaml.safe_load, blocks)
    whole["destinations"]["research"] = dict(whole["destinations"]["archive"])
    assert len(load(tmp_path, yaml.safe_dump({**whole, **rules})).rules) == 3
    assert load(tmp_path, blocks[0]).listen.callers == ("ARCHIVE",)


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("port: 104", "port: 99999"), 3, "destinations.pacs.port"),
        (("send_to: pacs", "send_to: paks"), 6, "sends to 'paks', which is no destination (pacs)"),
        (("send_to: pacs", "sent_to: pacs"), 6, "rules[0].sent_to (rule 'all')"),
        (("send_to: pacs", "send_to: []"), 5, "sends its results nowhere"),
        (("send_to: pacs", "send_to: pacs\n  - {name: all, send_to: pacs}"), 7, "stands there twice"),
        (("send_to: pacs", "send_to: pacs\n    name: other"), 7, "'name' stands there twice"),
        (("send_to: pacs", "send_to: pacs\n    leave_alone: true"), 5, "leaves images alone"),
        (("rules:", "listen: {host: 0.0.0.0}\nrules:"), 4, "name in callers who may send"),
        (("rules:", "study: {quiet_s: -1}\nrules:"), 4, "study.quiet_s"),
        (("kind: c-store", "kind: c-move"), 3, "destinations.pacs"),
        (("ae_title: ARCHIVE", 'ae_title: "SEVENTEEN LETTERS"'), 3, "destinations.pacs.ae_title"),
        (("pacs: {kind: c-store, host: 127.0.0.1, port: 104, ae_title: ARCHIVE}",
          "pacs: {kind: stow-rs, url: 'http://pacs.example/dicom-web'}"), 3, "use https"),
        (("pacs: {kind: c-store, host: 127.0.0.1, port: 104, ae_title: ARCHIVE}",
          "pacs: {kind: stow-rs, url: 'https://me:secret@pacs.example/dicom-web'}"), 3, "into a password_file"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path, change, line, said):
    assert change[0] in LEAST
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST.replace(*change))
    message = str(caught.value)
    assert said in message and "node.yaml, line " in message
    assert int(re.search(r"line (\d+)", message)[1]) in (line, line - 1)  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "just text",
        "a: [",
        "destinations: &a {x: *a}\nrules: []",
        "rules: !!python/object/apply:os.system ['touch /tmp/never']",
        "x: &a [1]\ny: [*a, *a]",
        b"\xff\xfe\x00",
        "a: 1\n" * 200_000,
    ],
)
def test_what_is_no_file_of_settings_is_told(tmp_path, text):
    with pytest.raises(ConfigError, match=r"node\.yaml"):
        load(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "nowhere.yaml")


def test_paths_are_those_of_the_file(tmp_path):
    text = LEAST + "folder: queue\nsources: {a: {url: 'https://x.example/w', token_file: secret.txt}}\n"
    settings = load(tmp_path, text)
    assert settings.folder == tmp_path / "queue"
    assert settings.sources["a"].token_file == tmp_path / "secret.txt"


@given(text=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_file_gives_settings_or_says_what_is_wrong(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "node.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError):
        load_settings(path)


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
)
SECTIONS = ("listen", "sources", "study", "predict", "retry", "keep", "limits", "destinations", "rules", "folder")


@given(section=st.sampled_from(SECTIONS), value=VALUES)
def test_any_value_in_any_section_gives_settings_or_says_what_is_wrong(tmp_path_factory, section, value):
    path = tmp_path_factory.mktemp("any") / "node.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(LEAST), section: value}), encoding="utf-8")
    try:
        load_settings(path)
    except ConfigError as error:
        assert "node.yaml" in str(error)


def facts(**changes) -> Facts:
    given = {
        "study_uid": "1.1",
        "series_uid": "1.2",
        "uid": "1.3",
        "sop_class": "1.2.840.10008.5.1.4.1.1.1",
        "modality": "CR",
        "body_part": "CHEST",
        "view": "PA",
        "study_description": "THORAX",
        "series_description": "",
        "manufacturer": "",
        "has_patient_id": True,
        "is_slice": False,
    }
    return Facts(**{**given, **changes})


def rule(name="a", **when) -> Rule:
    return Rule.model_validate({"name": name, "when": when, "send_to": "x"})


@pytest.mark.parametrize(
    ("when", "fits"),
    [
        ({}, True),
        ({"modality": "cr"}, True),
        ({"modality": ["DX", "CR"]}, True),
        ({"modality": "DX"}, False),
        ({"body_part": "CH*", "view": "?A"}, True),
        ({"body_part": "CH*", "view": "LL"}, False),
        ({"calling_ae": "SCAN*"}, True),
        ({"calling_ae": "scan*"}, False),  # titles are told apart by case (PS3.5, 6.2)
        ({"source": "archive"}, False),
        ({"series_description": "*"}, True),
        ({"series_description": "?*"}, False),
    ],
)
def test_a_rule_fits_where_all_of_it_does(when, fits):
    assert (matching_rule([rule(**when)], facts(), "ae:SCANNER") is not None) is fits


def test_the_first_rule_counts_and_may_leave_alone():
    rules = [
        Rule.model_validate({"name": "not these", "when": {"view": "LL"}, "leave_alone": True}),
        rule("first", modality="CR"),
        rule("second"),
    ]
    found = matching_rule(rules, facts(), "ae:X")
    assert found is not None and found.name == "first"
    assert matching_rule(rules, facts(view="LL"), "ae:X") is None


def test_secondary_captures_need_a_rule_that_wants_them():
    capture = facts(sop_class="1.2.840.10008.5.1.4.1.1.7")
    wanting = Rule.model_validate({"name": "films", "secondary_captures": True, "send_to": "x"})
    assert matching_rule([rule()], capture, "ae:X") is None
    assert matching_rule([rule(), wanting], capture, "ae:X") is wanting


@given(pattern=st.text("ab*?[]", min_size=1, max_size=5), value=st.text("ABC[]", max_size=5))
def test_a_pattern_never_fails(pattern, value):
    assert matching_rule([rule(body_part=pattern)], facts(body_part=value), "ae:X") is None or True
    if pattern == "*":
        assert matching_rule([rule(body_part=pattern)], facts(body_part=value), "ae:X") is not None
