package sottovoce.core

import java.io.File
import java.nio.ByteBuffer
import java.nio.channels.SeekableByteChannel
import java.security.MessageDigest

/** What one file must be. */
data class FileEntry(val bytes: Long, val sha256: String)

/** What a bundle for speech says of itself (docs/bundle.md, Manifest). */
class Manifest internal constructor(raw: Map<String, Any?>) {
    val name: String = raw.text("name")
    val precision: String = raw.text("precision")
    val target: String = raw.table("target").text("name")
    val files: Map<String, FileEntry>
    val shape: Shape
    val tokens: Steering

    init {
        if (raw["format"] != 1L) throw BundleException("bundle format ${printable(raw["format"].toString())}; 1 is known here")
        val needed = raw.table("requires").text("runtime")
        if (newer(needed, RUNTIME)) throw BundleException("made for sottovoce $needed, this app knows $RUNTIME; update it")
        val (task, family) = raw.text("task") to raw.text("family")
        if (task != "transcribe" || family != "whisper") {
            throw BundleException("a bundle for ${printable(task)} (${printable(family)}); a whisper that transcribes is needed")
        }
        val engine = raw.table("engine").text("name")
        if (engine != "onnxruntime") throw BundleException("made for ${printable(engine)}; this app runs onnxruntime")
        files = raw.table("files").mapValues { (name, value) -> entry(name, value) }
        shape = Shape.of(raw.table("model"), raw.table("audio"))
        tokens = Steering.of(raw.table("generation"), shape.vocabulary)
    }

    private fun entry(name: String, value: Any?): FileEntry {
        Archive.checkName(name)
        val fields = value as? Map<*, *>
        val (bytes, digest) = fields?.get("bytes") as? Long to fields?.get("sha256") as? String
        if (bytes == null || bytes < 0 || digest == null || !DIGEST.matches(digest)) {
            throw BundleException("the manifest's entry for $name has no size or no SHA-256")
        }
        return FileEntry(bytes, digest)
    }

    companion object {
        private const val RUNTIME = "0.1.0" // the sottovoce whose bundles this app knows
        private val DIGEST = Regex("[0-9a-f]{64}")

        private fun newer(left: String, right: String): Boolean {
            val (a, b) = listOf(left, right).map { text -> text.split('.').map { it.toIntOrNull() ?: 0 } }
            for (i in 0 until maxOf(a.size, b.size)) {
                val difference = a.getOrElse(i) { 0 } - b.getOrElse(i) { 0 }
                if (difference != 0) return difference > 0
            }
            return false
        }
    }
}

/** The numbers that size buffers. */
data class Shape(val layers: Int, val heads: Int, val headWidth: Int, val vocabulary: Int, val textContext: Int, val samples: Int) {
    companion object {
        internal fun of(model: Map<String, Any?>, audio: Map<String, Any?>) = Shape(
            layers = model.bounded("decoder_layers", 256),
            heads = model.bounded("decoder_heads", 256),
            headWidth = model.bounded("head_width", 1024),
            vocabulary = model.bounded("vocab_size", 1 shl 20),
            textContext = model.bounded("text_context", 1 shl 14),
            samples = audio.bounded("frame_samples", 1 shl 12) * audio.bounded("max_frames", 1 shl 14),
        )
    }
}

/** An opened `.svb`. Nothing in it is believed before its SHA-256 is the one noted. */
class Bundle private constructor(
    private val file: SeekableByteChannel,
    private val members: Map<String, Member>,
    val manifest: Manifest,
) {
    /** All of [name]. Throws [BundleException] where it is missing, damaged, or larger than [limit] bytes. */
    fun read(name: String, limit: Int = 64 shl 20): ByteArray {
        val member = member(name)
        if (member.size > limit) throw BundleException("$name has ${member.size} bytes, too many to read whole")
        val data = Archive.read(file, member.offset, member.size.toInt()).array()
        compare(name, MessageDigest.getInstance("SHA-256").digest(data))
        return data
    }

    /**
     * Copy the files [names] into [folder], so that an engine can map them. One that is damaged is removed again, and
     * [BundleException] thrown.
     */
    fun unpack(folder: File, names: Collection<String>, onProgress: (done: Long) -> Unit = {}) {
        folder.mkdirs()
        var done = 0L
        for (name in names) {
            val (member, target) = member(name) to File(folder, name)
            val digest = MessageDigest.getInstance("SHA-256")
            try {
                target.outputStream().use { out ->
                    copy(member) { bytes, count ->
                        digest.update(bytes, 0, count)
                        out.write(bytes, 0, count)
                        done += count
                        onProgress(done)
                    }
                }
                compare(name, digest.digest())
            } catch (error: BundleException) {
                target.delete()
                throw error
            }
        }
    }

    private fun copy(member: Member, take: (ByteArray, Int) -> Unit) {
        val buffer = ByteBuffer.allocate(1 shl 20)
        file.position(member.offset)
        var left = member.size
        while (left > 0) {
            buffer.clear().limit(minOf(left, buffer.capacity().toLong()).toInt())
            val count = file.read(buffer)
            if (count < 0) throw BundleException("${member.name} is cut short")
            take(buffer.array(), count)
            left -= count
        }
    }

    private fun member(name: String): Member {
        val known = members[name]?.takeIf { name in manifest.files }
        return known ?: throw BundleException("the bundle has no file $name")
    }

    private fun compare(name: String, digest: ByteArray) {
        val (found, wanted) = hex(digest) to manifest.files.getValue(name).sha256
        if (found != wanted) throw BundleException("$name is damaged: its SHA-256 is $found, expected $wanted")
    }

    companion object {
        private const val MAX_MANIFEST = 4 shl 20

        /** Reads the manifest alone. Throws [BundleException] when anything about the bundle's shape is wrong. */
        fun open(file: SeekableByteChannel): Bundle {
            val members = Archive.members(file)
            val (data, digest) = listOf("manifest.json", "manifest.sha256").map { name ->
                val member = members[name] ?: throw BundleException("not a bundle: it has no $name")
                if (member.size > MAX_MANIFEST) throw BundleException("its manifest is too large")
                Archive.read(file, member.offset, member.size.toInt()).array()
            }
            val found = hex(MessageDigest.getInstance("SHA-256").digest(data))
            if (String(digest, Charsets.US_ASCII) != "$found\n") {
                throw BundleException("manifest.json or manifest.sha256 is damaged: the SHA-256 is $found, not the one noted")
            }
            val manifest = Manifest(Json.objectOf(String(data, Charsets.UTF_8)))
            for ((name, entry) in manifest.files) {
                val size = members[name]?.size ?: throw BundleException("$name is missing")
                if (size != entry.bytes) throw BundleException("$name is damaged: it has $size bytes, expected ${entry.bytes}")
            }
            return Bundle(file, members, manifest)
        }

        private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }
    }
}
