"""A 3D Slicer scripted module: a CT from one or two X-rays, by the command `x2ct sample`, loaded into the scene."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from X2CTLib.command import FRONTAL_VIEWS, CommandError, SampleCommand, run

EXECUTABLE_SETTING = "X2CT/executable"
NOTICE = "Research tool, not a medical device: a synthesised CT is an estimate, not for diagnosis or treatment."


class X2CT(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent) -> None:
        super().__init__(parent)
        parent.title = "CT from X-rays (x2ct)"
        parent.categories = ["Registration.2D/3D", "Synthesis"]
        parent.contributors = ["the x2ct authors"]
        parent.helpText = f"Runs `x2ct sample` on one or two X-rays and loads the CT. {NOTICE}"
        parent.acknowledgementText = ""


class X2CTWidget(ScriptedLoadableModuleWidget):
    """The form: two files, the model, the seed, and a button."""

    def setup(self) -> None:
        """Build the form."""
        super().setup()
        self.logic = X2CTLogic()
        self.running = False
        section = ctk.ctkCollapsibleButton()
        section.text = "X-rays to CT"
        self.layout.addWidget(section)
        form = qt.QFormLayout(section)
        self.frontal, self.lateral = ctk.ctkPathLineEdit(), ctk.ctkPathLineEdit()
        self.view = qt.QComboBox()
        self.view.addItems(FRONTAL_VIEWS)
        self.executable = ctk.ctkPathLineEdit()
        self.executable.currentPath = qt.QSettings().value(EXECUTABLE_SETTING) or shutil.which("x2ct") or ""
        self.model, self.device = qt.QLineEdit("chest"), qt.QLineEdit("auto")
        self.seed = qt.QSpinBox()
        self.seed.maximum = 2**31 - 1
        self.mean = qt.QCheckBox("Posterior mean: least squared error, smoother than a patient")
        rows = {
            "Frontal X-ray": self.frontal,
            "Its view": self.view,
            "Lateral X-ray": self.lateral,
            "Model": self.model,
            "Device": self.device,
            "Seed": self.seed,
            "": self.mean,
            "Program x2ct": self.executable,
        }
        for title, widget in rows.items():
            form.addRow(title, widget)
        self.button, self.status = qt.QPushButton("Synthesise CT"), qt.QLabel(NOTICE)
        self.status.wordWrap = True
        form.addRow(self.button)
        form.addRow(self.status)
        self.button.clicked.connect(self.on_button)
        self.layout.addStretch(1)

    def on_button(self) -> None:
        """Start a run, or cancel the one that is on its way."""
        if self.running:
            self.running = False
            return
        command = SampleCommand(
            executable=self.executable.currentPath or "x2ct",
            frontal=self.frontal.currentPath,
            frontal_view=self.view.currentText,
            lateral=self.lateral.currentPath,
            model=self.model.text,
            device=self.device.text,
            seed=self.seed.value,
            mean=self.mean.checked,
        )
        self.running, self.button.text = True, "Cancel"
        try:
            self.logic.synthesise(command, self.tick)
            self.status.text = NOTICE
            qt.QSettings().setValue(EXECUTABLE_SETTING, command.executable)
        except CommandError as error:
            self.status.text = str(error)
            slicer.util.errorDisplay(str(error))
        finally:
            self.running, self.button.text = False, "Synthesise CT"

    def tick(self, line: str) -> bool:
        """Show the command's last line, keep Slicer alive, and return whether to go on."""
        self.status.text = line or "Starting ..."
        slicer.app.processEvents()
        return self.running


class X2CTLogic(ScriptedLoadableModuleLogic):
    """The run, without the form."""

    def synthesise(self, command: SampleCommand, tick=lambda line: True):
        """Run the command and return the scene's new volume node. Raises CommandError."""
        with tempfile.TemporaryDirectory(prefix="x2ct-slicer-") as folder:
            # The environment that Slicer was started in: its own would make another Python load Slicer's modules.
            environment = slicer.util.startupEnvironment()
            ct = run(command, Path(folder) / "synthetic-ct.nii.gz", environment=environment, tick=tick)
            node = slicer.util.loadVolume(str(ct), {"name": "Synthetic CT, not for diagnosis"})
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(1600, -200)
        return node


class X2CTTest(ScriptedLoadableModuleTest):
    """What Slicer's "Reload and Test" runs: the demo pair of an installed x2ct, where its program is on the PATH."""

    def runTest(self) -> None:
        """Synthesise a CT of the demo pair and look at its HU."""
        self.setUp()
        executable = qt.QSettings().value(EXECUTABLE_SETTING) or shutil.which("x2ct")
        assert executable, "no program x2ct: choose it in the module first"
        question = "from importlib.resources import files; print(files('x2ct') / 'models' / 'demo')"
        python = Path(executable).resolve().with_name("python")
        process = slicer.util.launchConsoleProcess([str(python), "-c", question], useStartupEnvironment=True)
        demo = Path(process.communicate()[0].strip())
        command = SampleCommand(executable, frontal=str(demo / "ap.npy"), lateral=str(demo / "lateral.npy"))
        hu = slicer.util.arrayFromVolume(X2CTLogic().synthesise(command))
        assert hu.shape == (128, 128, 128)
        assert hu.min() < -900
        assert hu.max() > 200
        self.delayDisplay("Test passed")
