package sottovoce.core

import java.io.BufferedInputStream
import java.io.BufferedOutputStream
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel

/**
 * Everything but ONNX Runtime, run on a workstation: tests/examples/test_android_core.py plays the engine on the other end
 * of two pipes, and compares the text with the runtime's.
 *
 *     Parity BUNDLE SAMPLES.f32 piece|captions UNPACKED
 *
 * Out: an operation (one byte) and its numbers, big-endian. In: what it asks for. The last operation is RESULT, with lines.
 */
fun main(arguments: Array<String>) {
    val (path, recording, mode, folder) = arguments
    val pipe = Pipe(DataInputStream(BufferedInputStream(System.`in`)), DataOutputStream(BufferedOutputStream(System.out)))
    val lines = try {
        FileChannel.open(File(path).toPath()).use { file ->
            val bundle = Bundle.open(file)
            bundle.unpack(File(folder), listOf("encoder.onnx", "decoder.onnx", "weights.bin", "vad.onnx"))
            val table = TokenTable(bundle.read("tokens.bin"), bundle.manifest.tokens.end)
            val transcriber = Transcriber(PipedEngine(pipe, bundle.manifest.shape), bundle.manifest.tokens, table)
            val samples = floatsOf(File(recording).readBytes())
            if (mode == "piece") piece(transcriber, samples) else captions(Captioner(transcriber, PipedVad(pipe)), samples)
        }
    } catch (error: BundleException) {
        listOf("error: ${error.message}")
    }
    pipe.result(lines.joinToString("\n"))
}

private fun piece(transcriber: Transcriber, samples: FloatArray): List<String> =
    transcriber.transcribe(samples, follows = false, final = true)
        .map { "%.3f %.3f%s".format(java.util.Locale.ROOT, it.start, it.end, it.text) } + "language ${transcriber.language}"

private fun captions(captioner: Captioner, samples: FloatArray): List<String> {
    val said = samples.indices.step(CHUNK).flatMap { at ->
        captioner.push(samples.copyOfRange(at, minOf(at + CHUNK, samples.size)))
    } + captioner.finish()
    return said.map { "${if (it.final) "final" else "partial"} ${it.text}" }
}

private fun floatsOf(bytes: ByteArray): FloatArray {
    val floats = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(floats.remaining()).also { floats.get(it) }
}

private class Pipe(private val input: DataInputStream, private val output: DataOutputStream) {
    fun start(samples: FloatArray) = send(START) { floats(samples) }

    fun restart() = send(RESTART) {}

    fun run(tokens: IntArray, positions: IntArray, vocabulary: Int): List<FloatArray> {
        send(RUN, tokens.size, *tokens, positions.size, *positions) {}
        return positions.map { FloatArray(vocabulary) { input.readFloat() } }
    }

    fun speech(samples: FloatArray): FloatArray {
        send(SPEECH) { floats(samples) }
        return FloatArray(input.readInt()) { input.readFloat() }
    }

    fun result(text: String) = send(RESULT) {
        val bytes = text.toByteArray()
        output.writeInt(bytes.size)
        output.write(bytes)
    }

    private fun floats(values: FloatArray) {
        output.writeInt(values.size)
        values.forEach(output::writeFloat)
    }

    private fun send(operation: Int, vararg numbers: Int, rest: () -> Unit) {
        output.writeByte(operation)
        numbers.forEach(output::writeInt)
        rest()
        output.flush()
    }

    private companion object {
        const val RESULT = 0
        const val START = 1
        const val RESTART = 2
        const val RUN = 3
        const val SPEECH = 4
    }
}

private class PipedEngine(private val pipe: Pipe, private val shape: Shape) : SpeechEngine {
    override fun start(samples: FloatArray): SpeechEngine.Sequence {
        pipe.start(samples)
        return object : SpeechEngine.Sequence {
            override fun restart() = pipe.restart()

            override fun run(tokens: IntArray, positions: IntArray) = pipe.run(tokens, positions, shape.vocabulary)

            override fun close() = Unit
        }
    }
}

private class PipedVad(private val pipe: Pipe) : VoiceActivity {
    override fun push(samples: FloatArray) = pipe.speech(samples)

    override fun reset() = Unit
}

private const val CHUNK = 1600 // samples, a tenth of a second
