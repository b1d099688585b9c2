"""Small tables in the panel."""

from typing import Any

import qt
from slicer.i18n import tr as _

from MediScanLib.study.fields import FIELDS

BAR_STEPS = 1000


def setTableRows(table: Any, rows: list[list[Any]]) -> None:
    """Fill a QTableWidget with texts, and with widgets where a cell is one; the table becomes as high as its rows."""
    table.setRowCount(0)
    table.setRowCount(len(rows))
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            if isinstance(cell, str):
                item = qt.QTableWidgetItem(cell)
                item.setToolTip(cell)
                table.setItem(row, column, item)
            else:
                table.setCellWidget(row, column, cell)
    for column in range(table.columnCount - 1):
        table.resizeColumnToContents(column)
    header = table.horizontalHeader().sizeHint.height()
    table.setFixedHeight(header + table.verticalHeader().defaultSectionSize * len(rows) + 4)


def probabilityBar(probability: float, toolTip: str = "") -> Any:
    """A bar with the probability in percent; what the bar shows stands in its text, too."""
    bar = qt.QProgressBar()
    bar.maximum = BAR_STEPS
    bar.value = round(BAR_STEPS * probability)
    bar.format = f"{100 * probability:.0f} %"
    bar.toolTip = toolTip
    return bar


def valueText(name: str, value: float | str | None) -> str:
    """A clinical value with its unit, as people write it."""
    if value is None:
        return _("unknown")
    return value if isinstance(value, str) else f"{value:g} {FIELDS[name].unit}".strip()
