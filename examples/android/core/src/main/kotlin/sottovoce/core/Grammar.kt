package sottovoce.core

import kotlin.math.exp
import kotlin.math.ln

/**
 * Which tokens may come next: Whisper's rules for timestamps (Radford et al. 2022, section 4.5), as
 * runtime/sottovoce/decoding/grammar.py has them.
 */
class Grammar(private val tokens: Steering) {
    private val forbidden: IntArray
    private val atBegin = (tokens.suppressAtBegin + tokens.end).toIntArray()

    init {
        // Everything from <|startoftranscript|> to <|notimestamps|> steers; none of it is ever transcript.
        val steering = tokens.end + 1 until tokens.timestampBegin
        forbidden = (tokens.suppress.toSet() + steering - tokens.end).toIntArray()
    }

    /** Forbids tokens by setting their logits to minus infinity, in place; [done] are the tokens so far. */
    fun apply(logits: FloatArray, done: List<Int>) {
        val (begin, end) = tokens.timestampBegin to tokens.end
        for (id in forbidden) logits[id] = NEVER
        if (done.isEmpty()) {
            for (id in atBegin) logits[id] = NEVER
            logits.fill(NEVER, 0, begin)
            logits.fill(NEVER, minOf(begin + MAX_FIRST + 1, logits.size), logits.size)
            return
        }
        val last = done.last() >= begin
        val closed = last && done.size > 1 && done[done.size - 2] < begin
        if (closed) {
            logits.fill(NEVER, 0, end) // the next segment opens, or the transcript ends
        } else if (last) {
            logits.fill(NEVER, begin, logits.size) // an opened segment: words come
        }
        val earlier = done.filter { it >= begin }.maxOrNull() ?: begin
        logits.fill(NEVER, begin, if (closed) earlier else earlier + 1)
        preferTimestamp(logits, begin)
    }

    private fun preferTimestamp(logits: FloatArray, begin: Int) {
        var words = NEVER
        for (id in 0 until begin) words = maxOf(words, logits[id])
        val times = logSum(logits, begin)
        if (times.isFinite() && times > words) logits.fill(NEVER, 0, begin)
    }

    private companion object {
        const val MAX_FIRST = 50 // timestamp tokens: the first is within a second
        const val NEVER = Float.NEGATIVE_INFINITY
    }
}

/** The logarithm of the sum of exponentials of [scores] from [first] on; minus infinity where all of them are. */
internal fun logSum(scores: FloatArray, first: Int = 0): Double {
    var top = Float.NEGATIVE_INFINITY
    for (i in first until scores.size) top = maxOf(top, scores[i])
    if (top == Float.NEGATIVE_INFINITY) return Double.NEGATIVE_INFINITY
    var sum = 0.0
    for (i in first until scores.size) sum += exp((scores[i] - top).toDouble())
    return top + ln(sum)
}

/** The likeliest language; [logits] (vocabulary) are those after <|startoftranscript|>. */
fun likeliestLanguage(logits: FloatArray, tokens: Steering): String? =
    tokens.languages.maxByOrNull { (_, id) -> logits[id] }?.key
