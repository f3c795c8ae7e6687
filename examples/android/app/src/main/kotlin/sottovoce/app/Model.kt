package sottovoce.app

import android.content.Context
import android.net.Uri
import android.system.Os
import java.io.File
import java.io.FileInputStream
import sottovoce.core.Bundle
import sottovoce.core.BundleException
import sottovoce.core.Captioner
import sottovoce.core.TokenTable
import sottovoce.core.Transcriber

/** A bundle that is open and ready to caption. */
class Model private constructor(
    val name: String,
    val precision: String,
    val captioner: Captioner,
    private val engine: OrtEngine,
    private val vad: OrtVoiceActivity,
) : AutoCloseable {
    override fun close() {
        engine.close()
        vad.close()
    }

    companion object {
        private val GRAPHS = listOf("encoder.onnx", "decoder.onnx", "weights.bin", "vad.onnx")

        /**
         * Copy the bundle that [chosen] names into the app's own folder, every digest checked on the way, and open it.
         * Throws [BundleException] for one that is damaged or made for something else. [onProgress] is told the percentage.
         */
        fun import(context: Context, chosen: Uri, onProgress: (Int) -> Unit): Model {
            val descriptor = context.contentResolver.openFileDescriptor(chosen, "r")
                ?: throw BundleException("the file cannot be opened")
            val kept = File(context.filesDir, "bundle.svb")
            descriptor.use { FileInputStream(it.fileDescriptor).use { from -> kept.outputStream().use(from::copyTo) } }
            return open(context, onProgress) ?: throw BundleException("the file could not be kept; is there room?")
        }

        /** The bundle that was chosen before; null where there is none. */
        fun open(context: Context, onProgress: (Int) -> Unit): Model? {
            val kept = File(context.filesDir, "bundle.svb")
            if (!kept.isFile) return null
            // From 1.29 on ONNX Runtime reports its use to its maker; the app has no network anyway.
            Os.setenv("ORT_DISABLE_TELEMETRY", "1", true)
            try {
                return FileInputStream(kept).channel.use { file -> opened(context, Bundle.open(file), onProgress) }
            } catch (error: BundleException) {
                kept.delete()
                throw error
            }
        }

        private fun opened(context: Context, bundle: Bundle, onProgress: (Int) -> Unit): Model {
            val manifest = bundle.manifest
            val whole = GRAPHS.sumOf { manifest.files[it]?.bytes ?: 0L }.coerceAtLeast(1)
            val folder = File(context.filesDir, "graphs")
            bundle.unpack(folder, GRAPHS) { done -> onProgress((100 * done / whole).toInt()) }
            val table = TokenTable(bundle.read("tokens.bin"), manifest.tokens.end)
            val threads = Runtime.getRuntime().availableProcessors().coerceIn(1, 4)
            val engine = OrtEngine(folder, manifest.shape, threads)
            val vad = OrtVoiceActivity(File(folder, "vad.onnx"))
            val captioner = Captioner(Transcriber(engine, manifest.tokens, table), vad)
            return Model(manifest.name, manifest.precision, captioner, engine, vad)
        }
    }
}
