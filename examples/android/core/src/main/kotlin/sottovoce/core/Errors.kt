package sottovoce.core

/** A bundle that is damaged, made for another task, or beyond this app; the message names the value and the way out. */
class BundleException(message: String) : Exception(message)

/** [text] safe to show: control characters replaced, cut at [limit]. */
internal fun printable(text: String, limit: Int = 120): String {
    val shown = text.map { if (it.isISOControl() || it.isSurrogate()) '\uFFFD' else it }.joinToString("")
    return if (shown.length <= limit) shown else shown.take(limit - 1) + "…"
}
