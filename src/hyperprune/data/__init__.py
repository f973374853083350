"""Data: text corpora (`store`, without torch, and `text`), labelled strings (`strings`, `reber`)."""
