package sottovoce.core

/**
 * JSON, read strictly: no key twice, no NaN, at most [MAX_DEPTH] deep. Objects become maps, arrays lists, numbers Long or
 * Double. Android has a reader of its own; this one also runs where the tests do.
 */
internal class Json private constructor(private val text: String) {
    private var at = 0

    private fun value(depth: Int): Any? {
        if (depth > MAX_DEPTH) fail("nested too deeply")
        space()
        return when (peek()) {
            '{' -> table(depth)
            '[' -> list(depth)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun table(depth: Int): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        separated('{', '}') {
            val key = string()
            space()
            expect(':')
            if (found.containsKey(key)) fail("the key ${printable(key)} is there twice")
            found[key] = value(depth + 1)
        }
        return found
    }

    private fun list(depth: Int): List<Any?> = buildList { separated('[', ']') { add(value(depth + 1)) } }

    private fun separated(open: Char, close: Char, item: () -> Unit) {
        expect(open)
        space()
        if (peek() == close) {
            at++
            return
        }
        while (true) {
            space()
            item()
            space()
            if (peek() == close) break
            expect(',')
        }
        at++
    }

    private fun string(): String = buildString {
        expect('"')
        while (true) {
            val next = next()
            when {
                next == '"' -> return@buildString
                next == '\\' -> append(escaped())
                next < ' ' -> fail("a control character in a text")
                else -> append(next)
            }
        }
    }

    private fun escaped(): Char = when (val next = next()) {
        '"', '\\', '/' -> next
        'b' -> '\b'
        'f' -> '\u000C'
        'n' -> '\n'
        'r' -> '\r'
        't' -> '\t'
        'u' -> (1..4).fold(0) { code, _ -> code * 16 + next().digitToInt(16) }.toChar()
        else -> fail("an unknown escape")
    }

    private fun number(): Number {
        val found = NUMBER.matchAt(text, at)?.value ?: fail("no value")
        at += found.length
        if (found.any { it in ".eE" }) {
            return found.toDouble().also { if (it.isInfinite()) fail("a number too large") }
        }
        return found.toLongOrNull() ?: fail("a number too large")
    }

    private fun <T> word(spelling: String, value: T): T {
        if (!text.startsWith(spelling, at)) fail("no value")
        at += spelling.length
        return value
    }

    private fun space() {
        while (at < text.length && text[at] in " \t\r\n") at++
    }

    private fun peek(): Char = text.getOrNull(at) ?: fail("it is cut short")

    private fun next(): Char = peek().also { at++ }

    private fun expect(wanted: Char) {
        if (next() != wanted) fail("'$wanted' is missing")
    }

    private fun fail(what: String): Nothing = throw BundleException("not valid JSON: $what at character $at")

    companion object {
        private const val MAX_DEPTH = 32
        private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")

        /** The object that [text] is. Throws [BundleException] for anything else. */
        fun objectOf(text: String): Map<String, Any?> {
            val reader = Json(text)
            val value = try {
                reader.value(0)
            } catch (error: IllegalArgumentException) {
                throw BundleException("not valid JSON: ${error.message}")
            }
            reader.space()
            if (reader.at != text.length) reader.fail("something follows")
            @Suppress("UNCHECKED_CAST")
            return value as? Map<String, Any?> ?: throw BundleException("not a JSON object")
        }
    }
}

/** The object under [key]. Throws [BundleException] where it is none. */
internal fun Map<String, Any?>.table(key: String): Map<String, Any?> {
    @Suppress("UNCHECKED_CAST")
    return this[key] as? Map<String, Any?> ?: throw BundleException("the manifest's $key is missing or no object")
}

/** The text under [key]. */
internal fun Map<String, Any?>.text(key: String): String =
    this[key] as? String ?: throw BundleException("the manifest's $key is missing or no text")

/** The whole number under [key], from 1 to [most]. */
internal fun Map<String, Any?>.bounded(key: String, most: Int): Int {
    val value = this[key] as? Long
    if (value == null || value !in 1..most) {
        throw BundleException("the manifest has $key = ${printable(this[key].toString())}; 1 to $most is possible")
    }
    return value.toInt()
}
