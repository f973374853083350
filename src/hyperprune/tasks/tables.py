"""The tables of a configuration file that describe a task, apart from all that needs torch."""

SETTING_TABLES = ("model", "text", "images", "strings", "training")
