package sottovoce.core

import java.util.Random
import kotlin.math.exp
import kotlin.math.ln

/** One decoded piece with what the guards say of it. */
class Attempt internal constructor(
    /** Without the end. */
    val tokens: List<Int>,
    /** The mean of the tokens chosen, the end among them. */
    val logProbability: Double,
    val looped: Boolean,
    val ratio: Double,
    /** No speech, as far as the model can tell. */
    val silent: Boolean,
    /** Looping, too repetitive, or more than can be said in the time. */
    val broken: Boolean,
    /** Broken or improbable: worth another try. */
    val failed: Boolean,
)

/**
 * Decodes one encoded piece until the result can be believed: greedily, then by sampling at rising temperatures. Rules and
 * thresholds are those of runtime/sottovoce/decoding/; the numbers that sampling draws are Java's, and so others.
 */
class Decoder(private val tokens: Steering, private val table: TokenTable) {
    private val grammar = Grammar(tokens)

    /** [prompt] is what a transcript begins with, [limit] how many tokens it may have, [seconds] how long the piece is. */
    fun decode(sequence: SpeechEngine.Sequence, prompt: IntArray, limit: Int, seconds: Double): Attempt {
        val tried = ArrayList<Attempt>()
        for (temperature in TEMPERATURES) {
            val attempt = attempt(sequence, prompt, limit, seconds, temperature)
            if (!attempt.failed) return attempt
            tried += attempt
        }
        return best(tried)
    }

    /** Greedily and once: what a caption that may still change is worth. */
    fun once(sequence: SpeechEngine.Sequence, prompt: IntArray, limit: Int, seconds: Double): Attempt =
        attempt(sequence, prompt, limit, seconds, 0.0)

    private fun attempt(
        sequence: SpeechEngine.Sequence, prompt: IntArray, limit: Int, seconds: Double, temperature: Double,
    ): Attempt {
        val random = if (temperature > 0) Random((1000 * seconds + 100 * temperature).toLong()) else null
        sequence.restart()
        val (first, second) = sequence.run(prompt, intArrayOf(0, prompt.size - 1))
        val noSpeech = exp(first[tokens.noSpeech] - logSum(first))
        val chosen = ArrayList<Int>()
        val logProbabilities = ArrayList<Double>()
        var logits = second
        while (true) {
            grammar.apply(logits, chosen)
            val token = if (random == null) likeliest(logits) else drawn(logits, temperature, random)
            logProbabilities += logits[token] - logSum(logits)
            if (token == tokens.end) break
            chosen += token
            if (chosen.size >= limit) break
            val cut = if (chosen.size % CHECK_LOOPS_EVERY == 0) Guards.loopStart(chosen) else null
            if (cut != null) return judge(chosen.take(cut), logProbabilities.take(cut), noSpeech, seconds, true)
            logits = sequence.run(intArrayOf(token), intArrayOf(0)).single()
        }
        return judge(chosen, logProbabilities, noSpeech, seconds, false)
    }

    private fun judge(
        chosen: List<Int>, logProbabilities: List<Double>, noSpeech: Double, seconds: Double, looped: Boolean,
    ): Attempt {
        val text = table.decode(chosen)
        val ratio = Guards.compressionRatio(text)
        val mean = logProbabilities.sum() / maxOf(1, logProbabilities.size)
        val improbable = mean < LOG_PROBABILITY
        val silent = improbable && noSpeech > NO_SPEECH
        val broken = looped || ratio > COMPRESSION_RATIO || Guards.tooFast(text, seconds)
        return Attempt(chosen, mean, looped, ratio, silent, broken, !silent && (broken || improbable))
    }

    /** Of attempts that all failed the likeliest that is not broken; where all are, what came before a probable loop. */
    private fun best(attempts: List<Attempt>): Attempt {
        val whole = attempts.filterNot { it.broken }
        val found = (whole.ifEmpty { attempts }).maxBy { it.logProbability }
        val beginsWell = found.looped && found.logProbability >= LOG_PROBABILITY && found.ratio <= COMPRESSION_RATIO
        if (found.silent || whole.isNotEmpty() || beginsWell) return found
        return with(found) { Attempt(tokens, logProbability, looped, ratio, silent = true, broken = broken, failed = failed) }
    }

    private fun likeliest(logits: FloatArray): Int {
        var best = 0
        for (id in 1 until logits.size) if (logits[id] > logits[best]) best = id
        return best
    }

    /** Gumbel's trick: the largest of logits plus such noise is a sample of them. */
    private fun drawn(logits: FloatArray, temperature: Double, random: Random): Int {
        var (best, most) = 0 to Double.NEGATIVE_INFINITY
        for (id in logits.indices) {
            if (logits[id] == Float.NEGATIVE_INFINITY) continue
            val score = logits[id] / temperature - ln(-ln(maxOf(random.nextDouble(), Double.MIN_VALUE)))
            if (score > most) {
                most = score
                best = id
            }
        }
        return best
    }

    private companion object {
        val TEMPERATURES = listOf(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        const val COMPRESSION_RATIO = 2.4
        const val LOG_PROBABILITY = -1.0
        const val NO_SPEECH = 0.6
        const val CHECK_LOOPS_EVERY = 4 // tokens
    }
}
