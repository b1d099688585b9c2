from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from MediScanLib.config import ModelConfig
from MediScanLib.errors import BundleError
from MediScanLib.network.bundle import (
    CARD_FILE,
    WEIGHTS_FILE,
    available_bundles,
    bundle_folders,
    file_sha256,
    load_bundle,
    save_bundle,
    user_models_folder,
)
from MediScanLib.network.fusion import FusionNetwork
from toys import make_card


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return FusionNetwork.build(ModelConfig(weights="none"))


@pytest.fixture
def folder(network, tmp_path):
    return save_bundle(network, make_card(), tmp_path).folder


def edit_card(folder, change):
    card = json.loads((folder / CARD_FILE).read_text())
    change(card)
    (folder / CARD_FILE).write_text(json.dumps(card))


def test_round_trip_keeps_weights_and_card(network, folder):
    bundle = load_bundle(folder)
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE]
    loaded = bundle.load_network()
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert bundle.card == make_card().model_copy(update={"files": {WEIGHTS_FILE: bundle.sha256}})


def test_saving_again_replaces_and_leaves_nothing_behind(network, folder):
    save_bundle(network, make_card().model_copy(update={"version": "2"}), folder.parent)
    assert load_bundle(folder).version == "2"
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_one_changed_bit_is_refused(folder):
    data = bytearray((folder / WEIGHTS_FILE).read_bytes())
    data[-100] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(data)
    with pytest.raises(BundleError, match=r"model.safetensors: SHA-256 is .* damaged or changed"):
        load_bundle(folder)


def test_weights_exchanged_after_the_check_are_refused(folder):
    bundle = load_bundle(folder)
    state = load_file(folder / WEIGHTS_FILE)
    save_file({name: torch.zeros_like(tensor) for name, tensor in state.items()}, folder / WEIGHTS_FILE)
    with pytest.raises(BundleError, match="damaged or changed"):
        bundle.load_network()


@pytest.mark.parametrize("keep", [0, 7, 1000])
def test_truncated_weights_are_refused_even_with_a_fitting_hash(folder, keep):
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(folder)
    edit_card(folder, lambda card: card["files"].update({WEIGHTS_FILE: file_sha256(path)}))
    with pytest.raises(BundleError, match="Install the bundle again"):
        load_bundle(folder).load_network()


def test_pickle_in_place_of_weights_is_never_loaded(folder):
    path = folder / WEIGHTS_FILE
    torch.save({"x": torch.zeros(1)}, path)
    edit_card(folder, lambda card: card["files"].update({WEIGHTS_FILE: file_sha256(path)}))
    with pytest.raises(BundleError):
        load_bundle(folder).load_network()


def test_weights_of_another_architecture_are_refused(folder):
    edit_card(folder, lambda card: card["network"].update(fusion="attention"))
    with pytest.raises(BundleError, match="do not fit"):
        load_bundle(folder).load_network()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card.pop("labels"), "labels"),
        (lambda card: card.update(surprise=1), "surprise"),
        (lambda card: card.update(schema_version="9"), "schema_version"),
        (lambda card: card["thresholds"].pop("covid"), "thresholds"),
        (lambda card: card["clinical"].pop("sex"), "clinical"),
        (lambda card: card["files"].update({"../../evil": "0" * 64}), "files"),
        (lambda card: card["input"].update(size=[64]), "input size"),
        (lambda card: card["input"].update(size=[0, 64]), "size"),
        (lambda card: card["input"].update(size=[6000, 6000]), "size"),
        (lambda card: card["input"].update(size=[2048, 2048, 2048]), "size"),
        (lambda card: card["input"].update(percentiles=[99, 1]), "percentiles"),
        (lambda card: card["input"].update(percentiles=[-5, 1000]), "percentiles"),
        (lambda card: card["input"].update(windows={"CT": [0, -5]}), "windows"),
        (lambda card: card["severity"]["grades"].reverse(), "grades"),
        (lambda card: card["input"].update(std=0), "std"),
    ],
)
def test_a_card_that_is_not_valid_says_where(folder, change, says):
    edit_card(folder, change)
    with pytest.raises(BundleError, match=says):
        load_bundle(folder)


def test_file_in_the_card_that_is_not_there(folder):
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(BundleError, match=r"model.safetensors is missing"):
        load_bundle(folder)


def test_huge_card_is_not_read(folder):
    with (folder / CARD_FILE).open("ab") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(BundleError, match="too large"):
        load_bundle(folder)


def test_unknown_name_lists_what_there_is(folder, monkeypatch):
    monkeypatch.setenv("MEDISCAN_MODELS", str(folder.parent))
    with pytest.raises(BundleError, match=r"no such model.*toy"):
        load_bundle("other")


def test_search_path_lists_whole_bundles_only(folder, monkeypatch):
    monkeypatch.setenv("MEDISCAN_MODELS", str(folder.parent))
    assert "toy" in [bundle.name for bundle in available_bundles()]
    assert load_bundle("toy").folder == folder
    (folder / WEIGHTS_FILE).write_bytes(b"")
    assert "toy" not in [bundle.name for bundle in available_bundles()]
    assert folder in bundle_folders(), "verify still finds it"


@pytest.mark.parametrize(
    ("platform", "variable"), [("win32", "LOCALAPPDATA"), ("darwin", "HOME"), ("linux", "XDG_DATA_HOME")]
)
def test_user_models_live_outside_the_installation(monkeypatch, tmp_path, platform, variable):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, str(tmp_path / "Jürgen"))
    assert user_models_folder().is_relative_to(tmp_path / "Jürgen")
