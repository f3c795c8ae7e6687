package sottovoce.core

/** What a live caption says: [text] of an utterance that may still change, or that is [final]. */
data class Caption(val text: String, val final: Boolean)

/**
 * Live captions: an utterance begins where somebody speaks, is decoded again every [STEP] seconds, and is final at a pause
 * or when it is as long as a piece may be. Simpler than the runtime's stream, which settles single words early.
 */
class Captioner(private val transcriber: Transcriber, private val vad: VoiceActivity) {
    private var audio = FloatArray(0) // of the utterance, or what came just before one
    private var pending = FloatArray(0) // less than a frame
    private var speaking = false
    private var quiet = 0 // frames
    private var decodedAt = 0 // samples of the utterance that the last partial heard

    /** Take samples at 16 kHz, of any length; what can be said now. */
    fun push(samples: FloatArray): List<Caption> {
        val probabilities = vad.push(samples)
        val all = pending + samples
        val captions = ArrayList<Caption>()
        for ((i, probability) in probabilities.withIndex()) {
            captions += frame(all.copyOfRange(i * FRAME, (i + 1) * FRAME), probability)
        }
        pending = all.copyOfRange(probabilities.size * FRAME, all.size)
        if (speaking && audio.size - decodedAt >= STEP * SAMPLE_RATE) {
            decodedAt = audio.size
            text(final = false).takeIf { it.isNotBlank() }?.let { captions += Caption(it, false) }
        }
        return captions
    }

    /** The end of the recording: what was begun is final. */
    fun finish(): List<Caption> {
        val captions = if (speaking) ended() else emptyList()
        vad.reset()
        audio = FloatArray(0)
        pending = FloatArray(0)
        return captions
    }

    private fun frame(samples: FloatArray, probability: Float): List<Caption> {
        audio += samples
        if (!speaking) {
            if (probability >= THRESHOLD) {
                speaking = true
                quiet = 0
                decodedAt = 0
            } else {
                audio = audio.copyOfRange(maxOf(0, audio.size - BEFORE), audio.size)
            }
            return emptyList()
        }
        quiet = if (probability < THRESHOLD - DROP) quiet + 1 else 0
        val pause = quiet * FRAME >= PAUSE * SAMPLE_RATE
        return if (pause || audio.size >= LONGEST * SAMPLE_RATE) ended() else emptyList()
    }

    private fun ended(): List<Caption> {
        val text = text(final = true)
        speaking = false
        audio = FloatArray(0)
        return if (text.isBlank()) emptyList() else listOf(Caption(text, true))
    }

    private fun text(final: Boolean): String =
        transcriber.transcribe(audio, follows = false, final = final).joinToString("") { it.text }.trim()

    private companion object {
        const val FRAME = 512 // samples, 32 ms
        const val THRESHOLD = 0.4f
        const val DROP = 0.15f
        const val PAUSE = 0.6 // seconds
        const val LONGEST = 15.0 // seconds
        const val STEP = 1.0 // seconds
        const val BEFORE = SAMPLE_RATE * 3 / 10 // samples kept from before somebody speaks
    }
}
