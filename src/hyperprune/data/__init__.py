"""Corpora and images: where they lie (`store`, without torch), and how they become batches."""
