"""What names a task, and the tables of a file that describe one, apart from all that needs torch."""

DEFAULT_TASK = "pydoc"
SETTING_TABLES = ("model", "text", "images", "strings", "training")
