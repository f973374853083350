"""From a run's records to what people and programs read: Markdown, one-file HTML, pictures, a terminal table.

Nothing here trains, ranks or measures; every number comes from the records. matplotlib and jinja2
(the extra `report`) are imported only when a page or a picture is made, Optuna when a study is written.
"""

from hyperprune.report.exports import write_epochs, write_study
from hyperprune.report.summary import summary_json
from hyperprune.report.terminal import text_table
from hyperprune.report.write import ReportFiles, write_report

__all__ = ["ReportFiles", "summary_json", "text_table", "write_epochs", "write_report", "write_study"]
