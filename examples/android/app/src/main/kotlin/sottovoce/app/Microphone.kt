package sottovoce.app

import android.annotation.SuppressLint
import android.media.AudioFormat
import android.media.AudioRecord
import android.media.MediaRecorder
import sottovoce.core.SAMPLE_RATE

/** The microphone at 16 kHz, mono, as floats: all the audio code there is, because the graph takes raw samples. */
class Microphone : AutoCloseable {
    private val record: AudioRecord

    init {
        val format = AudioFormat.ENCODING_PCM_FLOAT
        val least = AudioRecord.getMinBufferSize(SAMPLE_RATE, AudioFormat.CHANNEL_IN_MONO, format)
        // Room for what is said while an utterance is decoded.
        val bytes = maxOf(least, BUFFER_SECONDS * SAMPLE_RATE * Float.SIZE_BYTES)
        @SuppressLint("MissingPermission") // asked for by the activity
        record = AudioRecord(MediaRecorder.AudioSource.VOICE_RECOGNITION, SAMPLE_RATE, AudioFormat.CHANNEL_IN_MONO, format, bytes)
        check(record.state == AudioRecord.STATE_INITIALIZED) { "the microphone cannot be opened" }
        record.startRecording()
    }

    /** The next samples, a tenth of a second or more where some have waited. */
    fun read(): FloatArray {
        val first = FloatArray(SAMPLE_RATE / 10)
        val count = record.read(first, 0, first.size, AudioRecord.READ_BLOCKING)
        check(count >= 0) { "the microphone failed ($count)" }
        val rest = FloatArray(SAMPLE_RATE)
        val more = record.read(rest, 0, rest.size, AudioRecord.READ_NON_BLOCKING).coerceAtLeast(0)
        return first.copyOf(count) + rest.copyOf(more)
    }

    override fun close() {
        record.stop()
        record.release()
    }

    private companion object {
        const val BUFFER_SECONDS = 20
    }
}
