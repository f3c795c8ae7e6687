"""Live transcription: audio in as it comes, events out as soon as they are known."""
