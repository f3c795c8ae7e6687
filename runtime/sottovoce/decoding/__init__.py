"""From encoded audio to tokens: the rules of Whisper's token grammar, search, guards and fallback."""
