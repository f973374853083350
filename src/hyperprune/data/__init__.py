"""Corpora, images and labelled strings: where they lie (`store`, without torch), how they become batches."""
