package sottovoce.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.SeekableByteChannel

/** Where a member's bytes lie in the archive. */
data class Member(val name: String, val offset: Long, val size: Long)

/**
 * The zip form of a bundle (docs/bundle.md): members stored as they are. Names and sizes are taken from the central
 * directory and bounded; what is in a member is believed once its SHA-256 is the manifest's ([Bundle]).
 */
internal object Archive {
    private const val MAX_MEMBERS = 1024
    private const val MAX_NAME = 200
    private const val LOCAL = 30
    private const val CENTRAL = 46
    private const val END = 22
    private val NAME = Regex("[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")

    /** Throws [BundleException] for what is no zip, is cut short, compressed, or 4 GB and more. */
    fun members(file: SeekableByteChannel): Map<String, Member> {
        val size = file.size()
        if (size !in END.toLong() until 0xFFFFFFFFL) damaged("it has $size bytes")
        val end = read(file, size - END, END)
        if (end.getInt(0) != 0x06054B50) damaged("its end is missing")
        val count = end.getShort(10).toInt() and 0xFFFF
        val length = end.getInt(12).toLong() and 0xFFFFFFFFL
        val start = end.getInt(16).toLong() and 0xFFFFFFFFL
        if (count > MAX_MEMBERS || start + length + END != size || length > MAX_MEMBERS * (CENTRAL + MAX_NAME)) {
            damaged("its directory does not fit")
        }
        return parse(file, read(file, start, length.toInt()), count, start)
    }

    private fun parse(file: SeekableByteChannel, directory: ByteBuffer, count: Int, limit: Long): Map<String, Member> {
        val found = LinkedHashMap<String, Member>()
        val seen = HashSet<String>()
        var at = 0
        repeat(count) {
            if (at + CENTRAL > directory.limit()) damaged("its directory is cut short")
            val method = directory.getShort(at + 10).toInt()
            val size = directory.getInt(at + 24).toLong() and 0xFFFFFFFFL
            val nameLength = directory.getShort(at + 28).toInt() and 0xFFFF
            val extra = directory.getShort(at + 30).toInt() and 0xFFFF
            val header = directory.getInt(at + 42).toLong() and 0xFFFFFFFFL
            val next = at + CENTRAL + nameLength + extra
            if (next > directory.limit()) damaged("its directory is cut short")
            val name = String(directory.array(), at + CENTRAL, nameLength, Charsets.ISO_8859_1)
            checkName(name)
            if (!seen.add(name.lowercase())) damaged("$name is there twice")
            if (method != 0) damaged("$name is compressed")
            val local = read(file, header, LOCAL)
            if (local.getInt(0) != 0x04034B50) damaged("the header of $name is missing")
            val skipped = (local.getShort(26).toInt() and 0xFFFF) + (local.getShort(28).toInt() and 0xFFFF)
            val data = header + LOCAL + skipped
            if (data + size > limit) damaged("$name is cut short")
            found[name] = Member(name, data, size)
            at = next
        }
        return found
    }

    /** Throws [BundleException] for a name that could leave the folder it is unpacked into. */
    fun checkName(name: String) {
        if (name.length > MAX_NAME || !NAME.matches(name)) {
            throw BundleException("file name ${printable(name)} is not allowed: letters, digits, '.', '_' and '-'")
        }
    }

    fun read(file: SeekableByteChannel, offset: Long, length: Int): ByteBuffer {
        val buffer = ByteBuffer.allocate(length).order(ByteOrder.LITTLE_ENDIAN)
        file.position(offset)
        while (buffer.hasRemaining()) if (file.read(buffer) < 0) damaged("it is cut short")
        buffer.flip()
        return buffer
    }

    private fun damaged(what: String): Nothing =
        throw BundleException("damaged, or not a bundle that `sottovoce compile` wrote: $what")
}
