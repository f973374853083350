"""Text corpora: where they lie (`store`, without torch) and how they become streams (`text`)."""
