package sottovoce.core

/** A stretch of speech; times in seconds from the start of the piece. */
data class Segment(val start: Double, val end: Double, val text: String)

/** Pieces of audio to segments; numbers are those of runtime/sottovoce/pieces.py. */
class Transcriber(private val engine: SpeechEngine, private val tokens: Steering, private val table: TokenTable) {
    private val decoder = Decoder(tokens, table)

    /** The language that the last piece was heard to be in; null for a model that knows English alone. */
    var language: String? = null
        private set

    /**
     * Segments of a piece (n) at 16 kHz, at most 29 s. [follows] says whether other audio came before it, without which a
     * little silence is put there. [final] tries again where the result cannot be believed. [spoken] is the language if
     * it is known.
     */
    fun transcribe(samples: FloatArray, follows: Boolean, final: Boolean, spoken: String? = null): List<Segment> {
        val lead = if (follows) 0 else LEAD
        val heard = FloatArray(lead + samples.size)
        samples.copyInto(heard, lead)
        val seconds = samples.size.toDouble() / SAMPLE_RATE
        val limit = minOf(MAX_TOKENS, Math.round(seconds * TOKENS_A_SECOND).toInt() + TOKENS_TO_SPARE)
        engine.start(heard).use { sequence ->
            language = spoken ?: hear(sequence)
            val prompt = tokens.prompt(language)
            val attempt = if (final) decoder.decode(sequence, prompt, limit, seconds) else decoder.once(sequence, prompt, limit, seconds)
            if (attempt.silent || (!final && attempt.broken)) return emptyList()
            return segments(attempt.tokens, heard.size.toDouble() / SAMPLE_RATE)
                .map { it.copy(start = inside(it.start, lead, seconds), end = inside(it.end, lead, seconds)) }
                .filter { it.text.isNotBlank() }
        }
    }

    private fun hear(sequence: SpeechEngine.Sequence): String? {
        if (tokens.languages.isEmpty()) return null
        return likeliestLanguage(sequence.run(intArrayOf(tokens.start), intArrayOf(0)).single(), tokens)
    }

    private fun inside(time: Double, lead: Int, seconds: Double) = (time - lead.toDouble() / SAMPLE_RATE).coerceIn(0.0, seconds)

    /** Segments by the timestamps among [ids]; the whole piece where there are none. */
    fun segments(ids: List<Int>, duration: Double): List<Segment> {
        val found = ArrayList<Segment>()
        val text = ArrayList<Int>()
        var start = 0.0
        for (token in ids) {
            if (token < tokens.timestampBegin) {
                if (token < tokens.end) text += token
                continue
            }
            val time = minOf(tokens.seconds(token), duration)
            if (text.isNotEmpty()) found += Segment(start, maxOf(time, start), table.decode(text))
            text.clear()
            start = time
        }
        if (text.isNotEmpty()) found += Segment(start, maxOf(duration, start), table.decode(text))
        return found
    }

    private companion object {
        const val LEAD = SAMPLE_RATE / 10 // samples of silence: Whisper loses a consonant that begins the audio
        const val MAX_TOKENS = 224
        const val TOKENS_A_SECOND = 25
        const val TOKENS_TO_SPARE = 20
    }
}
