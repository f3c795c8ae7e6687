package sottovoce.core

import java.util.zip.Deflater

/** Signs that a transcript is not what was said, as runtime/sottovoce/decoding/guards.py has them. */
internal object Guards {
    /** How many times smaller zlib makes the text; prose stays below 2.4. */
    fun compressionRatio(text: String): Double {
        val data = text.toByteArray()
        if (data.isEmpty()) return 0.0
        val deflater = Deflater()
        deflater.setInput(data)
        deflater.finish()
        val buffer = ByteArray(4096)
        var count = 0
        while (!deflater.finished()) count += deflater.deflate(buffer)
        deflater.end()
        return data.size.toDouble() / count
    }

    /** Whether there are more characters than anybody says in [seconds]. */
    fun tooFast(text: String, seconds: Double): Boolean = text.codePointCount(0, text.length) > 25 + 35 * seconds

    /**
     * Where the tail of [tokens] begins to repeat itself: the index after the first time round, or null. A phrase of up
     * to 32 tokens counts when it came four times in a row (three, if it has eight tokens or more) and the repetition
     * covers at least 16 tokens.
     */
    fun loopStart(tokens: List<Int>): Int? {
        val count = tokens.size
        for (period in 1..minOf(32, count / 3)) {
            var covered = period
            while (covered < count && tokens[count - 1 - covered] == tokens[count - 1 - covered + period]) covered++
            if (covered >= 16 && covered / period >= (if (period >= 8) 3 else 4)) return count - covered + period
        }
        return null
    }
}
