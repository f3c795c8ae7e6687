package sottovoce.core

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Ids of the tokens that steer Whisper, and those never to be chosen; languages in the order of their ids. */
class Steering internal constructor(
    val end: Int,
    val start: Int,
    val transcribe: Int?,
    val noSpeech: Int,
    val timestampBegin: Int,
    val languages: Map<String, Int>,
    val suppress: List<Int>,
    val suppressAtBegin: List<Int>,
) {
    /** The tokens that begin a transcript with timestamps; [language] null for a model that knows English alone. */
    fun prompt(language: String?): IntArray {
        if (languages.isEmpty()) return intArrayOf(start)
        val code = languages[language] ?: throw IllegalArgumentException("language $language is not one of this model's")
        return intArrayOf(start, code, checkNotNull(transcribe) { "the model cannot transcribe" })
    }

    /** Seconds that a timestamp token stands for. */
    fun seconds(token: Int): Double = (token - timestampBegin) * 0.02

    companion object {
        internal fun of(generation: Map<String, Any?>, vocabulary: Int): Steering {
            val raw = generation.table("tokens")
            fun checked(value: Any?, what: String): Int {
                val id = value as? Long
                if (id == null || id !in 0 until vocabulary) {
                    throw BundleException("the manifest's ${printable(what)} token is no id below $vocabulary")
                }
                return id.toInt()
            }
            fun many(key: String) = (generation[key] as? List<*>)?.map { checked(it, key) }
                ?: throw BundleException("the manifest's $key is not a list of token ids")
            return Steering(
                end = checked(raw["end"], "end"),
                start = checked(raw["start"], "start"),
                transcribe = raw["transcribe"]?.let { checked(it, "transcribe") },
                noSpeech = checked(raw["no_speech"], "no_speech"),
                timestampBegin = checked(raw["timestamp_begin"], "timestamp_begin"),
                languages = raw.table("languages").mapValues { (code, id) -> checked(id, "language $code") }
                    .toList().sortedBy { it.second }.toMap(),
                suppress = many("suppress"),
                suppressAtBegin = many("suppress_at_begin"),
            )
        }
    }
}

/** The bytes of every token, as they lie in tokens.bin; ids from [firstSpecial] on stand for no text. */
class TokenTable(data: ByteArray, private val firstSpecial: Int) {
    private val ends: IntArray
    private val body: Int
    private val bytes = data

    init {
        val file = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
        if (data.size < START || MAGIC.indices.any { data[it] != MAGIC[it] }) damaged()
        val count = file.getInt(MAGIC.size)
        if (count < firstSpecial || 2L * count > data.size - START) damaged()
        ends = IntArray(count)
        var end = 0
        for (i in 0 until count) {
            end += file.getShort(START + 2 * i).toInt() and 0xFFFF
            ends[i] = end
        }
        body = START + 2 * count
        if (body.toLong() + end != data.size.toLong()) damaged()
    }

    /** The text of ordinary tokens; bytes that end inside a character become U+FFFD. */
    fun decode(tokens: Iterable<Int>): String {
        val out = ByteArrayOutputStream()
        for (token in tokens) {
            if (token >= firstSpecial) continue
            val start = if (token == 0) 0 else ends[token - 1]
            out.write(bytes, body + start, ends[token] - start)
        }
        return String(out.toByteArray(), Charsets.UTF_8)
    }

    private fun damaged(): Nothing = throw BundleException("tokens.bin is not a token table; compile the bundle again")

    private companion object {
        val MAGIC = "SVTK1\u0000".toByteArray(Charsets.US_ASCII)
        const val START = 10
    }
}
