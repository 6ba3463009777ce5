package com.frames.tinymodel20

import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.catch
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import java.nio.ByteBuffer
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger

/** Offers frames to a stream whose function waits until it may return, as a slow model does. */
object StreamCases {
    @JvmStatic
    fun main(arguments: Array<String>) =
        runBlocking {
            val said = Channel<String>(Channel.UNLIMITED)
            val released = AtomicInteger()
            val slow = CountDownLatch(1)
            val pixels = ByteBuffer.allocateDirect(64)
            val stream =
                FrameStream { frame ->
                    slow.await()
                    check(frame.width > 1) { "no model" }
                    2 * frame.width
                }

            fun offer(width: Int) = stream.offer({ released.incrementAndGet() }) { it.setRgba(pixels, width, 2, 4 * width) }
            launch {
                stream.results.catch { said.send("error ${it.message}") }.collect { said.send("result $it, released $released") }
            }
            println("first ${offer(2)}")
            println("dropped ${offer(4)}, released $released")
            slow.countDown()
            println(said.receive())
            println("second ${offer(3)}")
            println(said.receive())
            offer(1)
            println(said.receive())
            stream.close()
            println("closed ${offer(2)}, released $released")
        }
}
