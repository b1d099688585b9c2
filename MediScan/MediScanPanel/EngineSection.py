"""Where images are looked at: on this computer, or on a MediScan server that the user names."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MediScanLib.errors import MediScanError

LOCAL, SERVER = range(2)
ENGINE_SETTING, ADDRESS_SETTING = "MediScan/Engine", "MediScan/ServerAddress"
POLL_MILLISECONDS = 100


class EngineSection:
    """Chooses the engine. The choice belongs to this computer, not to the scene: a scene must not send images away."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        self._test: Any = None
        self.ui.engineComboBox.addItem(_("this computer"))
        self.ui.engineComboBox.addItem(_("a MediScan server"))
        self.ui.serverAddressEdit.text = slicer.util.settingsValue(ADDRESS_SETTING, "")
        chosen = slicer.util.settingsValue(ENGINE_SETTING, LOCAL, converter=int)
        self.ui.engineComboBox.setCurrentIndex(chosen if chosen in (LOCAL, SERVER) else LOCAL)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.connect("timeout()", self._poll)
        self.ui.engineComboBox.connect("currentIndexChanged(int)", self.onChanged)
        self.ui.serverAddressEdit.connect("textChanged(QString)", self.onChanged)
        self.ui.serverTokenEdit.connect("textChanged(QString)", self.onChanged)
        self.ui.testConnectionButton.connect("clicked(bool)", self.onTest)
        self._say("")
        self._apply()

    def cleanup(self) -> None:
        """Let go of everything."""
        self._timer.stop()
        self._forget()

    def onChanged(self, value: object = None) -> None:
        """Take the choice over; what a test said was said of another server."""
        self._forget()
        self._say("")
        self._apply()
        settings = qt.QSettings()
        settings.setValue(ENGINE_SETTING, self.ui.engineComboBox.currentIndex)
        settings.setValue(ADDRESS_SETTING, self.ui.serverAddressEdit.text.strip())
        self.panel.onEngineChanged()

    def onTest(self) -> None:
        """Ask the server who it is, without waiting for it."""
        self._forget()
        try:
            self._test = self.logic.testServer()
        except MediScanError as error:
            self._say(str(error))
            return
        self._say(_("Asking..."))
        self.ui.testConnectionButton.enabled = False
        self._timer.start()

    def _poll(self) -> None:
        try:
            info = self._test.poll()
        except MediScanError as error:
            self._forget()
            self._say(str(error))
            return
        if info is None:
            return
        self._forget()
        models = ", ".join(f"{model.name} {model.version}" for model in info.models) or _("none")
        self._say(
            _("Connected to MediScan {version} on {device}, as {role}. Models: {models}.").format(
                version=info.version, device=info.device, role=info.role, models=models
            )
        )
        self.panel.study.offerModels({model.name: model.title for model in info.models})

    def _forget(self) -> None:
        self._timer.stop()
        if self._test is not None:
            self._test.close()
            self._test = None
        self.ui.testConnectionButton.enabled = True

    def _apply(self) -> None:
        remote = self.ui.engineComboBox.currentIndex == SERVER
        self.ui.serverWidget.visible = remote
        self.ui.deviceComboBox.enabled = not remote
        address = self.ui.serverAddressEdit.text.strip()
        self.logic.setServer((address, self.ui.serverTokenEdit.text.strip()) if remote else None)

    def _say(self, text: str) -> None:
        self.ui.serverStatusLabel.text = text
        self.ui.serverStatusLabel.visible = bool(text)
